"""What objectives share that compare environments or groups: whose rows are whose, and sums over them."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.backbone.contract import Batch, Objective, ObjectiveSetting, Outputs, Training
from engram.backbone.data.columns import numbered
from engram.backbone.data.sets import Split
from engram.backbone.errors import must
from engram.backbone.objectives.columns import columns_of
from engram.backbone.objectives.cross_entropy import cross_entropies


class Groups:
    """The images of a batch by their groups, of which any may be missing.

    Args:
        of: [N] int64, the group of each, from 0.
        count: how many groups there are, G.

    Attributes:
        sizes: [G] float32, how many images of each are in the batch.
    """

    def __init__(self, of: Tensor, count: int) -> None:
        self.of, self.count = of, count
        self.sizes = self.sums(torch.ones_like(of, dtype=torch.float32))

    def sums(self, values: Tensor) -> Tensor:
        """[N, ...] -> [G, ...], over the images of each group."""
        return values.new_zeros(self.count, *values.shape[1:]).index_add(0, self.of, values)

    def means(self, values: Tensor) -> Tensor:
        """[N, ...] -> [G, ...], over the images of each group; 0 of a group that is missing."""
        return self.sums(values) / self.sizes.clamp_min(1).view(-1, *[1] * (values.ndim - 1))

    def average(self, values: Tensor, images: int = 1) -> Tensor:
        """[G] -> [], the mean over groups that have as many images at least; 0 where none has."""
        there = self.sizes >= images
        return values.where(there, 0.0).sum() / there.sum().clamp_min(1)

    def halves(self) -> Groups:
        """Two groups of each, 2 g and 2 g + 1: its first, third, ... image of the batch, and the others."""
        order = self.of.argsort(stable=True)
        before = self.sizes.cumsum(0) - self.sizes
        place = torch.arange(len(order), device=order.device) - before.long()[self.of[order]]
        second = torch.empty_like(order).scatter_(0, order, place % 2)
        return Groups(2 * self.of + second, 2 * self.count)

    def spread(self, values: Tensor, images: int = 2) -> Tensor:
        """[G, ...] -> [], the mean squared difference of two groups' values, over all pairs of groups.

        Groups with fewer images are left out; 0 where not two are left.
        """
        there = (self.sizes >= images)[:, None]
        flat, count = values.flatten(1), there.sum()
        centre = (flat * there).sum(0) / count.clamp_min(1)
        return 2 * ((flat - centre) * there).square().mean(1).sum() / (count - 1).clamp_min(1)


def by_image(values: Tensor, batch: Batch) -> Tensor:
    """The mean over the rows of an image: values [T N] of T steps, one after another, -> [N]."""
    return values.unflatten(0, (-1, batch.count)).mean(0)


class Comparing(Objective):
    """Compares the groups that a column of the data makes, by the cross-entropies of their images.

    Where every step's outputs are to be right (`EveryStep`) an image counts by its mean over steps. Images of a stream
    are grouped anew in every task.

    Args:
        column: names or whole numbers.

    Raises:
        UserError: the data have no such column, or a single group.
    """

    def __init__(self, column: str, setting: ObjectiveSetting) -> None:
        self.columns, self.column = (column,), column
        self.smoothing, self.device = setting.label_smoothing, setting.device
        self.enter(setting.data)
        if len(self.sizes) < 2 and not setting.alone:
            _, names = numbered(setting.data.columns[column])
            remedy = "Train on images of several, or use cross-entropy."
            raise must(f"the column {column!r} of the training images", "two values at least", names[0], remedy)

    def begin(self, training: Training) -> None:
        self.enter(training.data)

    def enter(self, data: Split) -> None:
        """Know the groups of these images; ``sizes`` [G] float32 is how many there are of each."""
        of = columns_of(data, [self.column], "cpu")[self.column]
        if of.ndim != 1 or of.is_floating_point():
            rule, remedy = "names or whole numbers, which make groups", "Name another column."
            raise must(f"the column {self.column!r}", rule, f"{of.dtype} {list(of.shape)}", remedy)
        self.sizes = of.bincount().float().to(self.device)

    def groups(self, batch: Batch) -> Groups:
        """The images of a batch; rows of further steps are of the same ones."""
        return Groups(batch.columns[self.column][: batch.count], len(self.sizes))

    def losses(self, outputs: Outputs, batch: Batch) -> Tensor:
        """The cross-entropy of every row."""
        return cross_entropies(outputs.logits, batch.labels, self.smoothing, outputs.offered)
