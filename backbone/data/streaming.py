"""Labelled images that are decoded while the trial computes, for sets over the memory budget."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from engram.backbone.data.columns import NO_COLUMNS, Columns, checked, chosen, joined
from engram.backbone.errors import UserError

WORKERS = 2
"""Processes that decode a streamed set while the trial computes; fewer where there are fewer processors."""


class ImageStore(Protocol):
    """Images that are decoded when they are asked for. It is pickled to the worker processes."""

    @property
    def in_shape(self) -> tuple[int, int, int]: ...

    @property
    def frames(self) -> int | None: ...

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """Decode ``[len(indices), C, H, W] uint8``, event frames ``[len(indices), T, C, H, W]``.

        Raises:
            UserError: a file has changed or gone since the set was opened.
        """
        ...


class StreamedSplit:
    """Images decoded on demand by a few processes, which all splits of one source share."""

    def __init__(
        self,
        store: ImageStore,
        indices: Tensor,
        labels: Tensor,
        sums: Tensor,
        squares: Tensor,
        columns: Columns = NO_COLUMNS,
        ahead: Ahead | None = None,
    ) -> None:
        """Choose ``indices: [N] int64`` of a store.

        Args:
            store: all images of the source.
            indices: positions in the store.
            labels: ``[N] int64``, of the chosen images.
            sums: ``[N, C] int64``, the pixels of each chosen image summed.
            squares: ``[N, C] int64``, the squares of the pixels summed.
            columns: what else is known of the chosen images.
            ahead: the processes that decode this store already; None: start some when they are needed.
        """
        self.store, self.indices, self.labels = store, indices, labels
        self.columns = checked(columns, len(labels))
        self._sums, self._squares = sums, squares
        self._ahead = ahead or Ahead(store)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return self.store.in_shape

    @property
    def frames(self) -> int | None:
        return self.store.frames

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, order: Tensor, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        places = self.indices.index_select(0, order)
        spans = order.split(batch_size) if len(order) else ()
        wanted = [part.tolist() for part in places.split(batch_size)]
        for position, span in enumerate(spans):
            images = self._ahead.take(wanted, position)
            yield torch.from_numpy(images).to(device), self.labels.index_select(0, span).to(device), span

    def select(self, indices: Tensor) -> StreamedSplit:
        labels, sums, squares = (held.index_select(0, indices) for held in (self.labels, self._sums, self._squares))
        columns, places = chosen(self.columns, indices), self.indices.index_select(0, indices)
        return StreamedSplit(self.store, places, labels, sums, squares, columns, self._ahead)

    def moments(self) -> tuple[Tensor, Tensor, int]:
        _, height, width = self.in_shape
        return self._sums.sum(0), self._squares.sum(0), len(self) * (self.frames or 1) * height * width

    def and_also(self, other: StreamedSplit) -> StreamedSplit:
        assert other.store is self.store
        pairs = zip(
            (self.indices, self.labels, self._sums, self._squares),
            (other.indices, other.labels, other._sums, other._squares),
            strict=True,
        )
        indices, labels, sums, squares = (torch.cat(pair) for pair in pairs)
        columns = joined((self.columns, other.columns))
        return StreamedSplit(self.store, indices, labels, sums, squares, columns, self._ahead)


class Ahead:
    """Processes that decode the batches a pass will want next, and live on from one pass to the next.

    A pass may be left and taken up where it stopped, as training does between two units of work: then nothing is
    decoded twice. When another pass comes in between, what was decoded for the first is thrown away. What comes back
    depends on the positions asked for alone.
    """

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._plan = _Plan()
        self._loading: list[Iterator[np.ndarray | UserError]] = []  # one, once there are processes
        # The collector of garbage cycles would close the queues of processes before it tells them to stop, and then
        # wait ten seconds. What a finalizer refers to it does not touch, so they are stopped in the right order.
        weakref.finalize(self, self._loading.clear).atexit = False

    def take(self, wanted: Sequence[list[int]], position: int) -> np.ndarray:
        """The images of ``wanted[position]``, the positions of a batch in the store, while those after it are decoded.

        Raises:
            UserError: a file has changed or gone since the set was opened.
        """
        self._plan.follow(wanted, position)
        if not self._loading:
            self._loading.append(self._started())
        while True:
            try:
                images = next(self._loading[0])
            except BaseException:  # a process was killed, or the trial is told to stop: start afresh the next time
                self._plan = _Plan()
                self._loading.clear()
                raise
            if self._plan.arrived():
                break
        if isinstance(images, UserError):
            raise UserError(*images.args)
        return images

    def _started(self) -> Iterator[np.ndarray | UserError]:
        return iter(
            DataLoader(
                _Stream(self._store),
                sampler=self._plan,
                batch_size=None,
                collate_fn=_unchanged,  # by default workers would make tensors, which travel in shared memory
                num_workers=min(WORKERS, _processors()),
                generator=torch.Generator(),  # otherwise it would draw from the trial's own random state
            )
        )

    def __reduce__(self) -> tuple[type[Ahead], tuple[ImageStore]]:
        return Ahead, (self._store,)


class _Plan(Sampler[list[int]]):
    """What to decode next. It never ends, as that would stop the processes: when nothing is wanted it says []."""

    def __init__(self) -> None:
        self._wanted: Sequence[list[int]] = ()
        self._next = 0
        self._asked: deque[list[int] | None] = deque()  # on the way, in order; None: not wanted, or not any more

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            batch = self._wanted[self._next] if self._next < len(self._wanted) else None
            self._next += 1
            self._asked.append(batch)
            yield batch or []

    def follow(self, wanted: Sequence[list[int]], position: int) -> None:
        """From now on decode ``wanted[position:]``; what is on the way counts if it is the beginning of that."""
        coming = [batch for batch in self._asked if batch is not None]
        if coming != list(wanted[position : position + len(coming)]):
            coming = []
            self._asked = deque(None for _ in self._asked)
        self._wanted, self._next = wanted, position + len(coming)

    def arrived(self) -> bool:
        """Take note of the oldest on the way; True when it is wanted."""
        return self._asked.popleft() is not None


class _Stream(Dataset[np.ndarray | UserError]):
    """One item is one batch, as an array: that goes through a pipe, and most containers have little shared memory."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def __getitem__(self, indices: list[int]) -> np.ndarray | UserError:
        try:
            return self._store.images(indices) if indices else np.empty(0, np.uint8)
        except UserError as error:  # raised in a worker it would arrive as a traceback
            return error


def _unchanged(batch: Any) -> Any:
    return batch


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
