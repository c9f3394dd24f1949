"""The channels with the largest effects, looked at more closely: what refutes them, and which way they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.backbone.seeding import generator
from engram.causal.effects.causes import Cause
from engram.causal.effects.options import SetTo
from engram.causal.effects.shown import Shown
from engram.causal.effects.variants import Variant, outcomes

PLACEBOS = 10
"""Directions by lot for every stage."""


@dataclass(frozen=True)
class Path:
    """From a cause to the answer, past a part of a later stage, its mediator."""

    cause: Cause
    mediator: Cause


def paths(chosen: Sequence[Cause]) -> list[Path]:
    """From every channel past every later stage, and past each of the channels chosen there."""
    stages = sorted({cause.stage for cause in chosen})
    found: list[Path] = []
    for cause in chosen:
        for stage in (each for each in stages if each > cause.stage):
            mediators = [Cause(stage), *(each for each in chosen if each.stage == stage)]
            found += [Path(cause, mediator) for mediator in mediators]
    return found


def directions(channels: int, stage: int, seed: int) -> Tensor:
    """Directions of a stage by lot, [PLACEBOS, C], of length 1."""
    drawn = torch.randn(PLACEBOS, channels, generator=generator(seed, "causal.effects/directions", stage))
    return drawn / drawn.norm(dim=1, keepdim=True)


class Following:
    """Probabilities of every picture with some channels set.

    A mediator that is held at what it has without the cause leaves the *direct* effect of a channel, that on all other
    ways (natural direct effect); what is missing to the total effect is called *indirect*.

    Args:
        chosen: channels.
        how: what they are set to.
        channels: how many every stage has.
        images: how many pictures there will be.
        outputs: of the network.
        seed: of the directions of placebos.

    Attributes:
        paths: see `paths`.
        own: [N, K] float32, the probability of every output as the network is.
        set_to: [chosen, N, K] float32, with each of the channels set.
        along: [stages, 3, PLACEBOS, N] float32, of the right output, with what a stage has along a direction by lot set
            as channels are, to what it has there for one other picture, and for a second one.
        direct: [paths, N] float32, of the right output, with a channel set and a mediator held.

    Source: Pearl 2001 (direct and indirect effects), section 3; Goldowsky-Dill et al. 2023 (path patching).
    """

    def __init__(
        self, chosen: Sequence[Cause], how: SetTo, channels: Sequence[int], images: int, outputs: int, seed: int
    ) -> None:
        self.how: SetTo = how
        self.chosen, self.paths = tuple(chosen), paths(chosen)
        self.directions = [directions(count, stage, seed) for stage, count in enumerate(channels)]
        self.own = torch.zeros(images, outputs)
        self.set_to = torch.zeros(len(self.chosen), images, outputs)
        self.along = torch.zeros(len(channels), 3, PLACEBOS, images)
        self.direct = torch.zeros(len(self.paths), images)

    def measure(self, shown: Shown, targets: Tensor, at: slice) -> None:
        """shown: some pictures; targets: [B] int64, their right outputs; at: their places among all."""
        self.own[at] = shown.logits.softmax(-1).cpu()
        answers = shown.network.answers
        if self.chosen:
            found = answers([shown.variant(cause, self.how) for cause in self.chosen])
            self.set_to[:, at] = found.softmax(-1).cpu()
        for stage, several in enumerate(self.directions):
            kinds = (shown.values(stage, self.how), shown.others[1][stage], shown.others[2][stage])
            for kind, values in enumerate(kinds):
                variants = [shown.along(stage, each.to(targets.device), values) for each in several]
                self.along[stage, kind, :, at] = outcomes(answers(variants), targets)[0].cpu()
        if self.paths:
            self.direct[:, at] = outcomes(answers(self._held(shown)), targets)[0].cpu()

    def _held(self, shown: Shown) -> list[Variant]:
        return [shown.variant(path.cause, self.how, [path.mediator.place]) for path in self.paths]

    def state_dict(self) -> dict[str, Tensor]:
        return {"own": self.own, "set_to": self.set_to, "along": self.along, "direct": self.direct}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(saved[name])
