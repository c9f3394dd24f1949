"""Splits whose every picture is made into another one, which may have other labels and another shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from engram.backbone.data.columns import INDEX, Columns, checked, chosen, joined
from engram.backbone.data.sets import MemorySplit, Split, pixel_sums

Change = Callable[[Tensor, Columns], Tensor]
"""images: [N, C, H, W] uint8 on the CPU, what is known of them -> images of one shape, [N, ...] uint8. It is a function
of each image and what is known of it, whichever others are there."""
_MEASURED = 2048  # pictures of a streamed set that give mean and deviation
_BATCH = 256
_VALUES = 2**21  # of pictures in memory that are changed together


class ChangedSplit:
    """A split of stills with every picture changed. See `engram.backbone.data.sets.Split`.

    It costs nothing until pictures are needed. Those in memory are changed once, when the first of them is; those that
    are streamed batch by batch, whenever they are.
    """

    def __init__(
        self,
        pictures: Split,
        change: Change,
        known: Columns,
        columns: Columns,
        *,
        labels: Tensor | None = None,
        in_shape: tuple[int, int, int] | None = None,
    ) -> None:
        """What there is instead of other pictures.

        Args:
            pictures: the others.
            change: makes one of the other.
            known: what ``change`` is told of every image.
            columns: what is to be known of every image that has been made.
            labels: [N] int64; None: those of the others.
            in_shape: what ``change`` makes; None: the shape of the others.
        """
        self.pictures, self.change, self.known = pictures, change, checked(known, len(pictures))
        self.columns = checked(columns, len(pictures))
        self.labels = pictures.labels if labels is None else labels
        self.in_shape = pictures.in_shape if in_shape is None else in_shape
        self.frames = None
        self._made: MemorySplit | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Tensor, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        if (made := self.made()) is not None:
            yield from made.batches(order, batch_size, device)
            return
        for images, _, positions in self.pictures.batches(order, batch_size, "cpu"):
            changed = self.change(images, chosen(self.known, positions))
            yield changed.to(device), self.labels[positions].to(device), positions

    def select(self, indices: Tensor) -> ChangedSplit:
        found = self._like(
            self.pictures.select(indices),
            chosen(self.known, indices),
            chosen(self.columns, indices),
            self.labels.index_select(0, indices),
        )
        found._made = None if self._made is None else self._made.select(indices)
        return found

    def and_also(self, other: ChangedSplit) -> ChangedSplit:
        both = ((self.known, other.known), (self.columns, other.columns))
        known, columns = map(joined, both)
        return self._like(
            self.pictures.and_also(other.pictures), known, columns, torch.cat((self.labels, other.labels))
        )

    def moments(self) -> tuple[Tensor, Tensor, int]:
        """Of all pictures in memory; of streamed ones of 2,048 at equal distances, or all when there are fewer."""
        if (made := self.made()) is not None:
            return made.moments()
        channels, height, width = self.in_shape
        count = min(len(self), _MEASURED)
        equally = torch.arange(count) * len(self) // max(count, 1)
        total = torch.zeros(2, channels, dtype=torch.int64)
        for images, _, _ in self.batches(equally, _BATCH, "cpu"):
            total += torch.stack([torch.from_numpy(each.sum(0)) for each in pixel_sums(images.numpy())])
        return total[0], total[1], count * height * width

    def _like(self, pictures: Split, known: Columns, columns: Columns, labels: Tensor) -> ChangedSplit:
        return ChangedSplit(pictures, self.change, known, columns, labels=labels, in_shape=self.in_shape)

    def made(self) -> MemorySplit | None:
        """All images, made; None where the pictures are streamed."""
        if self._made is not None:
            return self._made
        pictures = self.pictures.made() if isinstance(self.pictures, ChangedSplit) else self.pictures
        if isinstance(pictures, MemorySplit):
            at_once = max(1, _VALUES // math.prod(self.in_shape))
            rows = torch.arange(len(self)).split(at_once)
            parts = zip(pictures.images.split(at_once), rows, strict=True)
            images = [self.change(part, chosen(self.known, those)) for part, those in parts]
            self._made = MemorySplit(torch.cat(images), self.labels, self.columns)
        return self._made


def places_of(split: Split) -> Tensor:
    """The place of each picture in its part of the source, ``[N] int64``; in this split where nobody knows."""
    known = split.columns.get(INDEX)
    return known if isinstance(known, Tensor) else torch.arange(len(split))
