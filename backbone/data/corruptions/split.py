"""Sets of corrupted pictures: ``corrupted(split, kind, severity, seed=0) -> Split``.

It costs nothing until the pictures are needed, so that one set can be scored under all kinds and severities::

    for kind in KINDS:
        for severity in SEVERITIES:
            scores = score(model, corrupted(data.test, kind, severity), device)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from engram.backbone.data.columns import INDEX, Columns, without_masks
from engram.backbone.data.corruptions.applying import corrupt, require
from engram.backbone.data.corruptions.options import Corruption
from engram.backbone.data.sets import MemorySplit, Split, pixel_sums
from engram.backbone.errors import must

_MEASURED = 2048  # pictures of a streamed set that give mean and deviation
_BATCH = 256


class CorruptedSplit:
    """A split with every picture corrupted. See `engram.backbone.data.sets.Split`.

    Pictures in memory are corrupted once, when the first of them is needed; those that are streamed batch by batch,
    whenever they are.
    """

    def __init__(self, pictures: Split, kind: Corruption, severity: int, seed: int) -> None:
        self.pictures, self.severity, self.seed = pictures, severity, seed
        self.kind: Corruption = kind
        self._made: MemorySplit | None = None

    @property
    def labels(self) -> Tensor:
        return self.pictures.labels

    @property
    def columns(self) -> Columns:
        if self.kind == "elastic":
            return without_masks(self.pictures.columns)
        return self.pictures.columns

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return self.pictures.in_shape

    @property
    def frames(self) -> int | None:
        return None

    def __len__(self) -> int:
        return len(self.pictures)

    def batches(self, order: Tensor, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        if isinstance(self.pictures, MemorySplit):
            yield from self._in_memory(self.pictures).batches(order, batch_size, device)
            return
        places = self._places()
        for images, labels, positions in self.pictures.batches(order, batch_size, "cpu"):
            changed = corrupt(images, places[positions], self.kind, self.severity, self.seed)
            yield changed.to(device), labels.to(device), positions

    def select(self, indices: Tensor) -> CorruptedSplit:
        found = CorruptedSplit(self.pictures.select(indices), self.kind, self.severity, self.seed)
        found._made = None if self._made is None else self._made.select(indices)
        return found

    def and_also(self, other: CorruptedSplit) -> CorruptedSplit:
        return CorruptedSplit(self.pictures.and_also(other.pictures), self.kind, self.severity, self.seed)

    def moments(self) -> tuple[Tensor, Tensor, int]:
        """Of all pictures in memory; of streamed ones of 2,048 at equal distances, or all when there are fewer."""
        if isinstance(self.pictures, MemorySplit):
            return self._in_memory(self.pictures).moments()
        channels, height, width = self.in_shape
        count = min(len(self), _MEASURED)
        chosen = torch.arange(count) * len(self) // max(count, 1)
        total = torch.zeros(2, channels, dtype=torch.int64)
        for images, _, _ in self.batches(chosen, _BATCH, "cpu"):
            total += torch.stack([torch.from_numpy(each.sum(0)) for each in pixel_sums(images.numpy())])
        return total[0], total[1], count * height * width

    def _in_memory(self, pictures: MemorySplit) -> MemorySplit:
        if self._made is None:
            images = corrupt(pictures.images, self._places(), self.kind, self.severity, self.seed)
            self._made = MemorySplit(images, pictures.labels, self.columns)
        return self._made

    def _places(self) -> Tensor:
        """Of each picture in its part of the source; in this split where nobody knows."""
        known = self.pictures.columns.get(INDEX)
        return known if isinstance(known, Tensor) else torch.arange(len(self))


def corrupted(split: Split, kind: Corruption, severity: int, seed: int = 0) -> Split:
    """A split with every picture corrupted; labels and columns stay, but masks where pixels move.

    Args:
        split: of still pictures with 1 or 3 channels; what is drawn by lot follows its column ``original_index``.
        kind: one of `engram.backbone.data.corruptions.options.KINDS`.
        severity: 1 to 5.
        seed: in [0, 2**31); the same pictures for the same one.

    Raises:
        UserError: there is no such kind or severity, or the split has no such pictures.
    """
    if split.frames is not None:
        raise must("a data set to corrupt", "of still pictures", "one of recordings", "Choose another dataset.")
    require(kind, severity, split.in_shape[0])
    return CorruptedSplit(split, kind, severity, seed)
