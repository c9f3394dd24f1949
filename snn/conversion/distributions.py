"""Statistics of activations that come in batches: exact percentiles and fine histograms, row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

PER_OCTAVE, OCTAVES = 256, 16
BINS = PER_OCTAVE * OCTAVES
"""Bins of a histogram: so many between every value and its double, down to 2^-16 of the largest."""
_SHIFT = 23 - (PER_OCTAVE.bit_length() - 1)  # bits of a float32's fraction that a bin leaves out
_FIRST = (127 << 23 >> _SHIFT) - BINS  # of the bins that 1.0 is above all of
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
    """How often every row of a stream takes which value, in `BINS` bins whose width grows with the value.

    So small values are resolved as well as large ones, however far above the others the largest is: it is the leading
    bits of a float32, as a share of the largest value, that say which bin it is.

    Args:
        largest: [rows] >= 0.

    Attributes:
        counts: [rows, BINS] float64, whole numbers; the first bin holds zeros and what is nearly none.
    """

    def __init__(self, largest: Tensor) -> None:
        self.largest = largest
        self.counts = torch.zeros(len(largest), BINS, dtype=torch.float64, device=largest.device)

    def add(self, values: Tensor) -> None:
        """values: [n, rows] >= 0, the next n of each row; what is over the largest counts as that."""
        rows = len(self.largest)
        most = self.largest.float().clamp_min(torch.finfo(torch.float32).tiny)
        first = torch.arange(rows, device=values.device, dtype=torch.int32) * BINS
        for part in _blocks(values):
            bins = (part / most).view(torch.int32) >> _SHIFT
            bins = bins.sub_(_FIRST).clamp_(0, BINS - 1).add_(first)
            self.counts += torch.bincount(bins.flatten(), minlength=rows * BINS).view(rows, BINS)

    def mean_of(self, function: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """function: [k, BINS], values of k functions in every bin -> [rows, k], their means over some rows."""
        counts = self.counts[rows]
        return counts @ function.T / counts.sum(1, keepdim=True)


def bin_shares() -> Tensor:
    """[BINS] float64: the middle of every bin as a share of the largest value, 0 for the first."""
    middle = ((torch.arange(BINS, dtype=torch.int32) + _FIRST) << _SHIFT) + (1 << (_SHIFT - 1))
    shares = middle.view(torch.float32).double()
    shares[0] = 0
    return shares


def _blocks(values: Tensor) -> Iterator[Tensor]:
    return iter(values.split(max(1, _BLOCK // values.shape[1])))
