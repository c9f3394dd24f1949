"""What is counted while pictures pass a network: what the report is made of, as tensors that a trial keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engram.feedback.analysing import alignment
from engram.feedback.analysing.ablation import variants
from engram.feedback.analysing.convergence import residuals
from engram.feedback.analysing.looking import NOTHING, Changed, Inside

CLEAN = "clean"
Shown = Mapping[str, Tensor]
"""The same pictures under every condition, by its name: [B, C, H, W] uint8."""


def networks_of(inside: Inside) -> tuple[Changed, ...]:
    """What is changed in the networks compared: nothing, and all connections are switched off where there are some."""
    return (NOTHING, Changed(tuple(inside.connections))) if inside.connections else (NOTHING,)


class Measured:
    """Counts over pictures; the network does not change.

    Args:
        inside: the network.
        corruptions: what is done to pictures beside showing them clean.
        images: how many there will be.

    Attributes:
        networks: see `networks_of`.
        conditions: clean, and the corruptions.
        variants: which connections are changed, one after another.
        right: [networks, conditions, points, images] bool, which pictures are right after each number of steps.
        ablated: [variants, conditions, images] bool, which are right at the end.
        alike: [networks, corruptions, stages, points, 6] float64, see `alignment.sums`.
        change: [networks, conditions, stages, steps - 1] float64, sums of `residuals`.
    """

    def __init__(self, inside: Inside, corruptions: Sequence[str], images: int) -> None:
        self.inside, self.networks = inside, networks_of(inside)
        self.conditions, self.variants = (CLEAN, *corruptions), variants(inside.connections)
        networks, conditions, stages = len(self.networks), len(self.conditions), len(inside.stages)
        points = len(inside.points)
        self.right = torch.zeros(networks, conditions, points, images, dtype=torch.bool)
        self.ablated = torch.zeros(len(self.variants), conditions, images, dtype=torch.bool)
        like = (networks, len(corruptions), stages, points, alignment.SUMS)
        self.alike = torch.zeros(like, dtype=torch.float64)
        self.change = torch.zeros(networks, conditions, stages, inside.steps - 1, dtype=torch.float64)

    def watch(self, shown: Shown, labels: Tensor, at: slice) -> None:
        """Look at some pictures under every condition, with connections and without.

        Args:
            shown: the pictures.
            labels: [B] int64, outputs.
            at: their places among all.
        """
        inside, places = self.inside, torch.tensor(self.inside.points) - 1
        for network, how in enumerate(self.networks):
            clean: dict[str, Tensor] = {}
            for condition, images in enumerate(shown.values()):
                looked = inside.look(inside.normalised(images), how)
                answers = looked.logits[places.to(labels.device)].argmax(-1)
                self.right[network, condition, :, at] = (answers == labels).cpu()
                for stage, name in enumerate(inside.stages):
                    value = looked.stages[name]
                    self.change[network, condition, stage] += residuals(value).sum(1).cpu()
                    value = value[places.to(value.device)]
                    if condition:
                        pairs = zip(clean[name], value, strict=True)
                        self.alike[network, condition - 1, stage] += torch.stack([alignment.sums(*p) for p in pairs])
                    else:
                        clean[name] = value

    def ablate(self, variant: int, shown: Shown, labels: Tensor, at: slice) -> None:
        """Answer some pictures with the connections of one variant changed; arguments as of `watch`."""
        inside, how = self.inside, self.variants[variant].changed(self.inside.connections)
        for condition, images in enumerate(shown.values()):
            answers = inside.answers(inside.normalised(images), how).argmax(-1)
            self.ablated[variant, condition, at] = (answers == labels).cpu()

    def state_dict(self) -> dict[str, Tensor]:
        return {"right": self.right, "ablated": self.ablated, "alike": self.alike, "change": self.change}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(saved[name])
