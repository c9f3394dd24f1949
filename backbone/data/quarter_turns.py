"""Every class turned by quarter turns, each turn a class of its own, as few-shot protocols enlarge Omniglot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from engram.backbone.data.columns import Columns, chosen, joined, without_masks
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.data.sets import Source, Split
from engram.backbone.errors import must

TURNS = 4


class Turned:
    """Images of a split in some of their quarter turns, counter-clockwise; they are turned when they are asked for.

    See `engram.backbone.data.sets.Split`.
    """

    def __init__(self, split: Split, places: Tensor | None = None, columns: Columns | None = None) -> None:
        """``split`` in the turns that are asked for.

        Args:
            split: N square images; those of class k turned t times have label ``k * TURNS + t``.
            places: ``[M] int64``, image i turned t times as ``t * N + i``; None: all, one turn after another.
            columns: what is known of them; None: what the split tells, and in ``turn`` how often they are turned.
        """
        self.split = split
        self.places = torch.arange(TURNS * len(split)) if places is None else places
        self.turns, self.images = self.places // max(len(split), 1), self.places % max(len(split), 1)
        self.labels = split.labels[self.images] * TURNS + self.turns
        if columns is None:
            columns = {**chosen(without_masks(split.columns), self.images), "turn": self.turns}
        self.columns = columns
        self.in_shape, self.frames = split.in_shape, split.frames

    def __len__(self) -> int:
        return len(self.places)

    def batches(self, order: Tensor, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        positions = order.split(batch_size) if len(order) else ()
        upright = self.split.batches(self.images[order], batch_size, device)
        for (images, _, _), here in zip(upright, positions, strict=True):
            turns = self.turns[here]
            found = torch.empty_like(images)
            for turn in turns.unique().tolist():
                rows = (turns == turn).nonzero().squeeze(1).to(device)
                found[rows] = images[rows].rot90(turn, (-2, -1))
            yield found, self.labels[here].to(device), here

    def select(self, indices: Tensor) -> Turned:
        return Turned(self.split, self.places[indices], chosen(self.columns, indices))

    def and_also(self, other: Turned) -> Turned:
        """Both are of one source; where they are of one part, nothing is copied."""
        columns = joined((self.columns, other.columns))
        if other.split is self.split:
            return Turned(self.split, torch.cat((self.places, other.places)), columns)
        both, count = self.split.and_also(other.split), len(self.split) + len(other.split)
        first = self.turns * count + self.images
        second = other.turns * count + len(self.split) + other.images
        return Turned(both, torch.cat((first, second)), columns)

    def moments(self) -> tuple[Tensor, Tensor, int]:
        """A turn changes no sum: those of the upright images, as often as each is there."""
        times = self.images.bincount(minlength=len(self.split))
        sums, squares, count = torch.zeros(self.in_shape[0], dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 0
        for often in times.unique().tolist():
            alike = (times == often).nonzero().squeeze(1)
            part = self.split if len(alike) == len(self.split) else self.split.select(alike)
            each = part.moments()
            sums, squares, count = sums + often * each[0], squares + often * each[1], count + often * each[2]
        return sums, squares, count


def turned(source: Source) -> Source:
    """All classes of all parts in all quarter turns, called as before with ``/rot000``, ``/rot090``, ... behind.

    Raises:
        UserError: the images are not square.
    """
    height, width = source.train.in_shape[1:]
    if height != width:
        step = f"Resize them: --dataset.size {min(height, width)}."
        raise must("images in quarter turns", "square", f"{height} x {width} pixels", step)
    classes = tuple(f"{name}/rot{90 * turn:03d}" for name in source.classes for turn in range(TURNS))
    digest = Fingerprint()
    digest.words(("quarter turns", source.fingerprint))
    parts = {name: Turned(part) for name, part in source.parts.items()}
    return replace(source, parts=parts, classes=classes, fingerprint=digest.hexdigest(), keys=None)
