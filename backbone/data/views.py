"""Splits seen through other labels and changed pixels, and splits one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from engram.backbone.data.columns import NO_COLUMNS, Columns, checked, chosen, joined, without_classes, without_masks
from engram.backbone.data.sets import MemorySplit, Split

CHUNK = 10_000  # images changed at once

Transform = Callable[[Tensor, Tensor], Tensor]
"""images: [N, ..., C, H, W] uint8, their places in the split that is changed: [N] int64 on the CPU -> images of one
shape, the same for every call."""


@runtime_checkable
class DrawnAnew(Protocol):
    """A transform that changes an image differently in every pass over the split."""

    def __call__(self, images: Tensor, places: Tensor, /) -> Tensor: ...

    def in_pass(self, number: int) -> Transform:
        """The transform of one pass; passes are numbered from 0."""
        ...


def seen(split: Split, table: Tensor, transform: Transform | None = None, columns: Columns = NO_COLUMNS) -> Split:
    """``split`` with label ``table[label]`` (``table``: [classes] int64), every image changed and ``columns`` added.

    Images in memory are changed once, those that are streamed or look different in every pass batch by batch.
    """
    if isinstance(split, MemorySplit) and not isinstance(transform, DrawnAnew):
        images = split.images
        if transform is not None:
            parts = zip(images.split(CHUNK), torch.arange(len(images)).split(CHUNK), strict=True)
            images = torch.cat([transform(part, places) for part, places in parts])
        return MemorySplit(images, table[split.labels], _known(split, table, transform, columns))
    return View(split, table, transform, columns=columns)


def in_pass(split: Split, number: int) -> Split:
    """``split`` as a pass shows it; itself where all passes show the same. Passes are numbered from 0."""
    if isinstance(split, Joined):
        return Joined([in_pass(part, number) for part in split.parts])
    if isinstance(split, View) and isinstance(split.transform, DrawnAnew):
        return View(split.split, split.table, split.transform.in_pass(number), split.places, split.columns)
    return split


def _known(split: Split, table: Tensor, transform: Transform | None, columns: Columns) -> Columns:
    """The columns of a split under other labels that is changed, and those added."""
    known = split.columns if torch.equal(table, torch.arange(len(table))) else without_classes(split.columns)
    return {**(known if transform is None else without_masks(known)), **columns}


class View:
    """A split under other labels; the images are changed as they come. See `engram.backbone.data.sets.Split`.

    Args:
        split: what is seen.
        table: [classes] int64, the label for each class.
        transform: what changes the images.
        places: [N] int64 of the images, for the transform; None where ``split`` is the whole part of a task.
        columns: what is known of the images beside what ``split`` tells.
    """

    def __init__(
        self,
        split: Split,
        table: Tensor,
        transform: Transform | None,
        places: Tensor | None = None,
        columns: Columns = NO_COLUMNS,
    ) -> None:
        self.split, self.table, self.transform = split, table, transform
        self.places = torch.arange(len(split)) if places is None else places
        self.labels = table[split.labels]
        self.columns = checked(_known(split, table, transform, columns), len(split))
        self.in_shape, self.frames = split.in_shape, split.frames

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, order: Tensor, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        table = self.table.to(device)
        for images, labels, positions in self.split.batches(order, batch_size, device):
            changed = images if self.transform is None else self.transform(images, self.places[positions])
            yield changed, table[labels], positions

    def select(self, indices: Tensor) -> Split:
        columns = chosen(self.columns, indices)
        return View(self.split.select(indices), self.table, self.transform, self.places[indices], columns)

    def and_also(self, other: Any) -> Any:
        return Joined([self, other])

    def moments(self) -> tuple[Tensor, Tensor, int]:
        return self.split.moments()


class Joined:
    """Several splits, one after another. See `engram.backbone.data.sets.Split`."""

    def __init__(self, parts: list[Split]) -> None:
        self.parts = parts
        self.labels = torch.cat([part.labels for part in parts])
        self.columns = joined([part.columns for part in parts])
        self.in_shape, self.frames = parts[0].in_shape, parts[0].frames
        sizes = torch.tensor([len(part) for part in parts])
        self.starts = sizes.cumsum(0) - sizes

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Tensor, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for positions in order.split(batch_size):
            owner = torch.searchsorted(self.starts, positions, right=True) - 1
            images: Tensor | None = None
            for index, part in enumerate(self.parts):
                rows = (owner == index).nonzero().squeeze(1)
                if not len(rows):
                    continue
                (found,) = (x for x, _, _ in part.batches(positions[rows] - self.starts[index], len(rows), device))
                images = found.new_empty(len(positions), *found.shape[1:]) if images is None else images
                images[rows.to(device)] = found
            assert images is not None
            yield images, self.labels[positions].to(device), positions

    def select(self, indices: Tensor) -> Split:
        owner = torch.searchsorted(self.starts, indices, right=True) - 1
        if len(indices) > 1 and bool((owner.diff() < 0).any()):
            raise ValueError("positions must go through the parts in their order")
        parts = [part.select(indices[owner == i] - self.starts[i]) for i, part in enumerate(self.parts)]
        return Joined([part for part in parts if len(part)])

    def and_also(self, other: Any) -> Any:
        return Joined([*self.parts, other])

    def moments(self) -> tuple[Tensor, Tensor, int]:
        each = [part.moments() for part in self.parts]
        sums = torch.stack([moments[0] for moments in each]).sum(0)
        squares = torch.stack([moments[1] for moments in each]).sum(0)
        return sums, squares, sum(moments[2] for moments in each)
