"""A network in which something is set: where, to what, and what else is held as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engram.causal.intervening.place import Place

OUTCOMES = ("probability", "logit", "accuracy")
"""What an effect is on: the probability of the right class, its logit, and whether the answer is right."""


@dataclass(frozen=True, eq=False)
class Variant:
    """An intervention on the output of one stage.

    Attributes:
        place: where, at a stage.
        values: what is put there, [S, B, C', ...], in which any dimension but the last two may be 1.
        held: places at later stages that are held at what they have without it.
    """

    place: Place
    values: Tensor
    held: tuple[Place, ...] = ()


class Network(Protocol):
    """A classifier that is asked what it answers under many interventions.

    Attributes:
        stages: the output of every stage for the images last looked at, [S, B, C, H, W].
    """

    stages: list[Tensor]

    def look(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] normalised -> logits [B, K]."""
        ...

    def answers(self, variants: Sequence[Variant]) -> Tensor:
        """Logits of the images last looked at under each of the variants, [G, B, K]."""
        ...


def outcomes(logits: Tensor, targets: Tensor) -> Tensor:
    """What `OUTCOMES` are.

    Args:
        logits: [..., B, K].
        targets: [B] int64, the right output of each image.

    Returns: [3, ..., B] float32.
    """
    places = targets.expand(logits.shape[:-1]).unsqueeze(-1)
    logit = logits.gather(-1, places).squeeze(-1)
    right = logits.argmax(-1) == targets
    return torch.stack([(logit - logits.logsumexp(-1)).exp(), logit, right.to(logit.dtype)])
