"""Labelled images, in memory or streamed, behind one protocol. An image may be a sequence of event frames."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.columns import NO_COLUMNS, Columns, checked, chosen, indexed, joined
from engram.backbone.data.options import Duplicates

_CHUNK_VALUES = 2**24  # summed at once


class Split(Protocol):
    """One set of labelled images. What `batches` yields may be a view: read it, do not write into it.

    Event data are counts of events in ``frames`` equal spans of time, ``[T, C, H, W] uint8`` for each recording; with
    two channels the first counts events that got darker (polarity 0), the second those that got brighter (1).
    """

    @property
    def labels(self) -> Tensor:
        """``[N] int64`` on the CPU."""
        ...

    @property
    def columns(self) -> Columns:
        """What else is known of every image, by name (`engram.backbone.data.columns`)."""
        ...

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        ...

    @property
    def frames(self) -> int | None:
        """How many frames each image has; None for stills."""
        ...

    def __len__(self) -> int: ...

    def batches(self, order: Tensor, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield images, labels and positions, the last batch as long as it is.

        Images ``[b, C, H, W] uint8``, event frames ``[b, T, C, H, W] uint8``, and labels ``[b] int64`` are on
        ``device``. Positions ``[b] int64`` are the batch's part of ``order``, on the CPU: whatever else is known of
        an image stands there.

        Args:
            order: ``[M] int64`` positions in this split, in the order wanted; repeats are allowed.
            batch_size: images per batch.
            device: where the batches are needed.
        """
        ...

    def select(self, indices: Tensor) -> Split:
        """The images at ``indices: [M] int64``, in that order."""
        ...

    def and_also(self, other: Self) -> Self:
        """These images, then those of another split of the same source."""
        ...

    def moments(self) -> tuple[Tensor, Tensor, int]:
        """Sums per channel of the pixels and of their squares, each ``[C] int64``, and how many pixels a channel has.

        Over all images and frames; over a fixed choice of them where every image has to be computed first.
        """
        ...


class MemorySplit:
    """Images held as one tensor, copied to the device once; a batch is an index select, in file order a slice."""

    def __init__(self, images: Tensor, labels: Tensor, columns: Columns = NO_COLUMNS) -> None:
        """Images and labels on the CPU.

        Args:
            images: ``[N, C, H, W] uint8``, event frames ``[N, T, C, H, W]``.
            labels: ``[N] int64``.
            columns: what else is known of every image.
        """
        self.images, self.labels, self.columns = images, labels, checked(columns, len(labels))
        self._held = {"cpu": (images, labels)}

    @property
    def in_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[-3:]
        return channels, height, width

    @property
    def frames(self) -> int | None:
        return self.images.shape[1] if self.images.ndim == 5 else None

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Tensor, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        if device not in self._held:
            self._held[device] = (self.images.to(device), self.labels.to(device))
        images, labels = self._held[device]
        if len(order) and bool(order[0] >= 0) and torch.equal(order, torch.arange(len(order)) + order[0]):
            stop = int(order[0]) + len(order)
            if stop > len(self):
                raise IndexError(f"position {stop - 1} in a split of {len(self)} images")
            for start in range(int(order[0]), stop, batch_size):
                span = slice(start, min(start + batch_size, stop))
                yield images[span], labels[span], order[span.start - int(order[0]) : span.stop - int(order[0])]
            return
        if not len(order):
            return
        for there, positions in zip(order.to(device).split(batch_size), order.split(batch_size), strict=True):
            yield images.index_select(0, there), labels.index_select(0, there), positions

    def select(self, indices: Tensor) -> MemorySplit:
        images, labels = self.images.index_select(0, indices), self.labels.index_select(0, indices)
        return MemorySplit(images, labels, chosen(self.columns, indices))

    def and_also(self, other: MemorySplit) -> MemorySplit:
        images, labels = torch.cat((self.images, other.images)), torch.cat((self.labels, other.labels))
        return MemorySplit(images, labels, joined((self.columns, other.columns)))

    def moments(self) -> tuple[Tensor, Tensor, int]:
        channels, height, width = self.in_shape
        sums, squares = np.zeros((2, channels), np.int64)
        for part in self.images.split(max(_CHUNK_VALUES // math.prod(self.images.shape[1:]), 1)):
            each = pixel_sums(part.numpy())
            sums, squares = sums + each[0].sum(0), squares + each[1].sum(0)
        return torch.from_numpy(sums), torch.from_numpy(squares), len(self) * (self.frames or 1) * height * width


def pixel_sums(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums per image and channel of ``images: [N, C, H, W] uint8`` and of their squares, ``[N, C] int64`` each.

    Event frames ``[N, T, C, H, W]`` are summed over time as well.

    >>> [sums.tolist() for sums in pixel_sums(np.full((1, 1, 2, 2), 255, np.uint8))]
    [[[1020]], [[260100]]]
    """
    flat = images.reshape(len(images), -1, *images.shape[-3:]).astype(np.uint16)  # 255 squared fits 16 bits
    return flat.sum((1, 3, 4), dtype=np.int64), (flat * flat).sum((1, 3, 4), dtype=np.int64)


def in_memory(parts: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Split]:
    """Parts of a source from images and labels as `MemorySplit` takes them, each with its ``original_index``."""
    return {name: MemorySplit(images, labels, indexed(len(labels))) for name, (images, labels) in parts.items()}


@dataclass(frozen=True)
class Source:
    """What a dataset holds, before training needs anything of it."""

    parts: Mapping[str, Split]
    """By name: ``train`` first, and what else the source has, such as ``test`` or ``validation``."""
    classes: tuple[str, ...]
    """What the labels of all parts stand for."""
    fingerprint: str
    """sha256 over all image bytes, labels and class names, and over the columns that were asked for."""
    keys: Tensor | None = None
    """``[N] int64`` of the images, part after part: equal where the pixels are. None: not known."""
    duplicates: Duplicates = "keep"
    """What becomes of images that stand in two splits."""
    disjoint: bool = False
    """Whether no class stands in two parts, so that what is learned must serve classes never seen."""
    pictures: str = ""
    """Fingerprint of the set whose pictures are shown changed, in the same parts and order; "": they are its own."""

    def shows(self, fingerprints: Collection[str]) -> bool:
        """Whether its pictures are those of a set with one of these fingerprints, changed or not."""
        return not {self.fingerprint, self.pictures}.isdisjoint(set(fingerprints) - {""})

    @property
    def train(self) -> Split:
        return self.parts["train"]

    @property
    def test(self) -> Split | None:
        """None: the source has no test set of its own."""
        return self.parts.get("test")


@dataclass(frozen=True)
class Used:
    """Which of the training images are used.

    The share of every class, as nearly as whole images allow and at least one image each, drawn by a seed in
    [0, 2**31). Images of a smaller share are among those of a larger one.
    """

    share: float = 1.0
    """Greater than 0, at most 1."""
    seed: int = 0


ALL = Used()


@dataclass(frozen=True)
class Data:
    """What a network is trained, chosen and tested on: three sets without a common image."""

    name: str
    train: Split
    validation: Split | None
    test: Split
    classes: tuple[str, ...]
    in_shape: tuple[int, int, int]
    mean: Tensor
    """``[C] float32`` of the train split, for images in [0, 1]; of event frames over time as well."""
    std: Tensor
    """``[C] float32`` of the train split, never below one grey level."""
    fingerprint: str
    frames: int | None = None
    """How many event frames an image has; None for stills."""
    facts: Mapping[str, int] = field(default_factory=dict)
    """What was counted while the splits were made."""
    cautions: tuple[str, ...] = ()
    """What to know before believing a score on them."""
    held_out: bool = False
    """Whether the test images were held out of one part, because the source has no test set of its own."""
    disjoint: bool = False
    """Whether no class stands in two of the sets."""
    pictures: str = ""
    """As of its source (`Source.pictures`)."""
    used: Used = ALL
    """Which of the images left to train on are in ``train``."""
