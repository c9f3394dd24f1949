"""Statistics of activations that come in batches: exact percentiles and fine histograms, row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

BINS = 4096
"""Bins of a histogram between zero and the largest value."""
_BLOCK = 2**21  # values looked at together: what is made of them on the way stays in memory of this order


class RunningMaximum:
    """The largest value of every row of a stream."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """values: [n, rows], the next n of each row."""
        largest = values.amax(0)
        self.value = largest if self.value is None else torch.maximum(self.value, largest)


class RunningPercentile:
    """The exact percentile of every row of a stream, keeping only the values above it.

    Values come in blocks that double in size; of each block only what exceeds the smallest value kept so far is looked
    at again, which in a stream without order is about as much as is kept. So nearly all of the time goes into one
    comparison per value.

    Args:
        percentile: in (0, 100].
        total: how many values each row will have in the end.

    Memory: rows x (1 - percentile / 100) x total. The result is that of ``numpy.percentile`` (linear interpolation).
    """

    def __init__(self, percentile: float, total: int) -> None:
        self.total = total
        self.place = (total - 1) * percentile / 100
        self.keep = total - math.floor(self.place)
        self.seen = 0
        self.top: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """values: [n, rows], the next n of each row; contiguous, without NaN."""
        self.top = values.new_empty(values.shape[1], 0) if self.top is None else self.top
        start = 0
        while start < len(values):
            free = self.keep - self.top.shape[1]
            size = free or max(self.keep, min(self.seen, _BLOCK // values.shape[1]))
            part = values[start : start + size]
            candidates = part.T if free else _above(part, self.top.amin(1))
            pool = torch.cat([self.top, candidates], 1)
            self.top = pool if pool.shape[1] <= self.keep else pool.topk(self.keep, 1, sorted=False).values
            self.seen += len(part)
            start += len(part)

    def value(self) -> Tensor:
        """[rows], once all ``total`` values have been seen."""
        if self.seen != self.total:
            raise ValueError(f"each row must have had {self.total} values; got {self.seen}")
        top = self._top().topk(min(2, self.keep), 1, largest=False).values.sort(1).values
        below, above = top[:, 0], top[:, -1]
        return torch.lerp(below, above, self.place - math.floor(self.place))

    def largest(self) -> Tensor:
        """[rows]: the maximum, which is always among the kept values."""
        return self._top().amax(1)

    def _top(self) -> Tensor:
        if self.top is None:
            raise ValueError("no values were added")
        return self.top


def _above(values: Tensor, floor: Tensor) -> Tensor:
    """The values of every row over its floor. values: [n, rows], floor: [rows] -> [rows, most], padded with -inf."""
    rows = values.shape[1]
    found = (values > floor).flatten().nonzero().squeeze(1)
    row, order = (found % rows).sort()
    count = torch.bincount(row, minlength=rows)
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    out = values.new_full((rows, int(count.max())), -torch.inf)
    out[row, place] = values.flatten()[found[order]]
    return out


class Histogram:
    """How often every row of a stream takes which value: `BINS` equal bins from 0 to its largest.

    Args:
        largest: [rows] >= 0.

    Attributes:
        counts: [rows, BINS] float64, whole numbers.
    """

    def __init__(self, largest: Tensor) -> None:
        self.largest = largest
        self.counts = torch.zeros(len(largest), BINS, dtype=torch.float64, device=largest.device)

    def add(self, values: Tensor) -> None:
        """values: [n, rows] >= 0, the next n of each row."""
        rows = len(self.largest)
        scale = torch.where(self.largest > 0, BINS / self.largest, 0)
        first = torch.arange(rows, device=values.device, dtype=torch.int32) * BINS
        for part in _blocks(values):
            bins = (part * scale).to(torch.int32).clamp_(max=BINS - 1).add_(first)
            self.counts += torch.bincount(bins.flatten(), minlength=rows * BINS).view(rows, BINS)

    def mean_of(self, function: Tensor) -> Tensor:
        """function: [k, BINS], values of k functions in every bin -> [rows, k], their means over the stream."""
        return self.counts @ function.T / self.counts.sum(1, keepdim=True)


def _blocks(values: Tensor) -> Iterator[Tensor]:
    return iter(values.split(max(1, _BLOCK // values.shape[1])))
