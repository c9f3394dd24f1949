"""Labelled images, in memory or streamed, behind one protocol."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from backbone.errors import UserError

WORKERS = 2
"""Processes that decode a streamed set while the trial computes; fewer where there are fewer processors."""


class Split(Protocol):
    """One set of labelled images. What `batches` yields may be a view: read it, do not write into it."""

    @property
    def labels(self) -> Tensor:
        """``[N] int64`` on the CPU."""
        ...

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        ...

    def __len__(self) -> int: ...

    def batches(self, order: Tensor, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images ``[b, C, H, W] uint8`` and labels ``[b] int64`` on ``device``, the last batch as long as it is.

        Args:
            order: ``[M] int64`` positions in this split, in the order wanted; repeats are allowed.
            batch_size: images per batch.
            device: where the batches are needed.
        """
        ...

    def select(self, indices: Tensor) -> Split:
        """The images at ``indices: [M] int64``, in that order."""
        ...

    def moments(self) -> tuple[Tensor, Tensor]:
        """Exact sums per channel of the pixels and of their squares, each ``[C] int64``, over all images."""
        ...


class MemorySplit:
    """Images held as one tensor, copied to the device once; a batch is an index select, in file order a slice."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        """``images: [N, C, H, W] uint8`` and ``labels: [N] int64``, both on the CPU."""
        self.images, self.labels = images, labels
        self._held = {"cpu": (images, labels)}

    @property
    def in_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Tensor, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
        if device not in self._held:
            self._held[device] = (self.images.to(device), self.labels.to(device))
        images, labels = self._held[device]
        if len(order) and bool(order[0] >= 0) and torch.equal(order, torch.arange(len(order)) + order[0]):
            stop = int(order[0]) + len(order)
            if stop > len(self):
                raise IndexError(f"position {stop - 1} in a split of {len(self)} images")
            for start in range(int(order[0]), stop, batch_size):
                span = slice(start, min(start + batch_size, stop))
                yield images[span], labels[span]
            return
        for chosen in order.to(device).split(batch_size) if len(order) else ():
            yield images.index_select(0, chosen), labels.index_select(0, chosen)

    def select(self, indices: Tensor) -> MemorySplit:
        return MemorySplit(self.images.index_select(0, indices), self.labels.index_select(0, indices))

    def moments(self) -> tuple[Tensor, Tensor]:
        sums, squares = np.zeros((2, self.in_shape[0]), np.int64)
        for part in self.images.split(512):
            each = pixel_sums(part.numpy())
            sums, squares = sums + each[0].sum(0), squares + each[1].sum(0)
        return torch.from_numpy(sums), torch.from_numpy(squares)


class ImageStore(Protocol):
    """Images that are decoded when they are asked for. It is pickled to the worker processes."""

    @property
    def in_shape(self) -> tuple[int, int, int]: ...

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """Decode ``[len(indices), C, H, W] uint8``.

        Raises:
            UserError: a file has changed or gone since the set was opened.
        """
        ...


class StreamedSplit:
    """Images decoded on demand, through a torch DataLoader; for sets over the memory budget."""

    def __init__(self, store: ImageStore, indices: Tensor, labels: Tensor, sums: Tensor, squares: Tensor) -> None:
        """Choose ``indices: [N] int64`` of a store.

        Args:
            store: all images of the source.
            indices: positions in the store.
            labels: ``[N] int64``, of the chosen images.
            sums: ``[N, C] int64``, the pixels of each chosen image summed.
            squares: ``[N, C] int64``, the squares of the pixels summed.
        """
        self.store, self.indices, self.labels = store, indices, labels
        self._sums, self._squares = sums, squares

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return self.store.in_shape

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, order: Tensor, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
        chosen = self.indices.index_select(0, order)
        loader = DataLoader(
            _Stream(self.store, [part.tolist() for part in chosen.split(batch_size)] if len(chosen) else []),
            batch_size=None,
            collate_fn=_unchanged,  # by default workers would make tensors, which travel in shared memory
            num_workers=min(WORKERS, _processors()),
            generator=torch.Generator(),  # otherwise every pass would draw from the trial's own random state
        )
        for images, span in zip(loader, order.split(batch_size), strict=False):
            if isinstance(images, UserError):
                raise images
            yield torch.from_numpy(images).to(device), self.labels.index_select(0, span).to(device)

    def select(self, indices: Tensor) -> StreamedSplit:
        labels, sums, squares = (held.index_select(0, indices) for held in (self.labels, self._sums, self._squares))
        return StreamedSplit(self.store, self.indices.index_select(0, indices), labels, sums, squares)

    def moments(self) -> tuple[Tensor, Tensor]:
        return self._sums.sum(0), self._squares.sum(0)

    def and_also(self, other: StreamedSplit) -> StreamedSplit:
        """These images, then those of another split of the same store."""
        pairs = zip(
            (self.indices, self.labels, self._sums, self._squares),
            (other.indices, other.labels, other._sums, other._squares),
            strict=True,
        )
        return StreamedSplit(self.store, *(torch.cat(pair) for pair in pairs))


class _Stream(Dataset[np.ndarray | UserError]):
    """One item is one batch, as an array: that goes through a pipe, and most containers have little shared memory."""

    def __init__(self, store: ImageStore, batches: list[list[int]]) -> None:
        self._store, self._batches = store, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, item: int) -> np.ndarray | UserError:
        try:
            return self._store.images(self._batches[item])
        except UserError as error:  # raised in a worker it would arrive as a traceback
            return error


def _unchanged(batch: Any) -> Any:
    return batch


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pixel_sums(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums per image and channel of ``images: [N, C, H, W] uint8`` and of their squares, ``[N, C] int64`` each.

    >>> [sums.tolist() for sums in pixel_sums(np.full((1, 1, 2, 2), 255, np.uint8))]
    [[[1020]], [[260100]]]
    """
    flat = images.reshape(*images.shape[:2], -1).astype(np.uint16)
    return flat.sum(2, dtype=np.int64), (flat * flat).sum(2, dtype=np.int64)  # 255 squared fits 16 bits


def join(first: Split, second: Split) -> Split:
    """The images of both splits of one source, first those of ``first``."""
    if isinstance(first, StreamedSplit) and isinstance(second, StreamedSplit):
        return first.and_also(second)
    everything = [
        batch for part in (first, second) for batch in part.batches(torch.arange(len(part)), max(len(part), 1), "cpu")
    ]
    images, labels = zip(*everything, strict=True)
    return MemorySplit(torch.cat(images), torch.cat(labels))


@dataclass(frozen=True)
class Source:
    """What a dataset holds, before training needs anything of it."""

    train: Split
    test: Split | None
    """None: the source has one split only."""
    classes: tuple[str, ...]
    fingerprint: str
    """sha256 over all image bytes, labels and class names."""


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
    """``[C] float32`` of the train split, for images in [0, 1]."""
    std: Tensor
    """``[C] float32`` of the train split, never below one grey level."""
    fingerprint: str
