"""Which images an epoch shows, and in which order (`engram.backbone.contract.Sampler`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engram.backbone.data.sets import Split
from engram.backbone.objectives.columns import columns_of
from engram.backbone.seeding import generator


@dataclass(frozen=True)
class Uniform:
    """All images once, shuffled; or in the order they have."""

    shuffled: bool = True

    def rows(self, data: Split) -> int:
        return len(data)

    def order(self, data: Split, seed: int, epoch: int) -> Tensor:
        if not self.shuffled:
            return torch.arange(len(data))
        return torch.randperm(len(data), generator=generator(seed, "order", epoch))


@dataclass(frozen=True)
class Balanced:
    """As many images of every group, which take turns, so that whole batches and both halves of one are balanced.

    An epoch has as many images as the data, give or take one a group. A group that is smaller than its share comes
    again, whole and shuffled anew; of a larger one other images are shown in every epoch.

    Args:
        column: whose values are the groups: a column of the data, or ``label``.
    """

    column: str

    def rows(self, data: Split) -> int:
        groups = len(self._groups(data).unique())
        return groups * -(-len(data) // groups)

    def order(self, data: Split, seed: int, epoch: int) -> Tensor:
        groups = self._groups(data)
        names = groups.unique().tolist()
        share, random = -(-len(data) // len(names)), generator(seed, "balanced", epoch)
        each = []
        for name in names:
            members = (groups == name).nonzero().squeeze(1)
            times = -(-share // len(members))
            drawn = [members[torch.randperm(len(members), generator=random)] for _ in range(times)]
            each.append(torch.cat(drawn)[:share])
        return torch.stack(each, 1).flatten()

    def _groups(self, data: Split) -> Tensor:
        return data.labels if self.column == "label" else columns_of(data, [self.column], "cpu")[self.column]


@dataclass(frozen=True, eq=False)
class Weighted:
    """As many images as there are, drawn with replacement, each as often as its weight says.

    Args:
        weights: [N] float, 0 or more, one of them above 0.
    """

    weights: Tensor

    def rows(self, data: Split) -> int:
        return len(data)

    def order(self, data: Split, seed: int, epoch: int) -> Tensor:
        random = generator(seed, "weighted", epoch)
        return torch.multinomial(self.weights.double(), len(data), replacement=True, generator=random)
