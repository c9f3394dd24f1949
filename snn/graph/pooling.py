"""Max pooling of values that change from step to step, so that its sum over time is the maximum of the sums."""

from __future__ import annotations

from torch import Tensor, nn

from engram.snn.graph.timed import AlongTime, empty_over_time, over_time


class RunningMaxPool(AlongTime):
    """Base of max pools whose output, summed over the steps so far, is the maximum of what their inputs sum to.

        S_j[t] = S_j[t-1] + x_j[t]
        y[t] = max_j S_j[t] - max_j S_j[t-1]

    The maximum of every step would sum to more than the maximum of the sums whenever neighbours take turns, so that
    its mean over time overestimates what the analog network computes, at any T. Here the mean is exact at every T, and
    a constant input gives the plain maximum at every step. Spikes of one threshold come out as spikes: a sum that
    grows by theta or not at all has a maximum that does the same.

    The caveat: it needs a running sum for each input (a counter, where inputs are spikes) and comparisons between them;
    no hardware that only passes spikes on has either. An analog value, [B, C, H, W], is pooled as always.

    Source: Rueckauer et al. 2017 (doi 10.3389/fnins.2017.00682), spiking max pooling: a gate that lets the most active
    neuron pass. The differences of maxima stand in place of that gate, which makes the sums exact.
    """

    def along_time(self, drive: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """drive: [T, B, C, H, W] -> ([T, B, C, H', W'], the sums [B, C, H, W] of all steps so far, as ``before``)."""
        sums = drive[0].clone() if before is None else before + drive[0]
        largest = self(sums)
        out = empty_over_time(largest, over_time(largest, len(drive)))
        out[0] = largest if before is None else largest - self(before)
        for t, x in enumerate(drive[1:].unbind(0), 1):
            sums = sums + x
            now = self(sums)
            out[t] = now - largest
            largest = now
        return out, sums


class RunningMaxPool2d(RunningMaxPool, nn.MaxPool2d):
    """Windows as in nn.MaxPool2d."""


class RunningAdaptiveMaxPool2d(RunningMaxPool, nn.AdaptiveMaxPool2d):
    """Windows as in nn.AdaptiveMaxPool2d."""


def running(pool: nn.MaxPool2d | nn.AdaptiveMaxPool2d) -> RunningMaxPool2d | RunningAdaptiveMaxPool2d:
    """The same pooling, exact along time."""
    if isinstance(pool, nn.AdaptiveMaxPool2d):
        return RunningAdaptiveMaxPool2d(pool.output_size)
    return RunningMaxPool2d(pool.kernel_size, pool.stride, pool.padding, pool.dilation, ceil_mode=pool.ceil_mode)


def window(pool: nn.AvgPool2d) -> int:
    """The side of a plain average pooling's windows, 0 where they are not square, overlap, or are no plain averages."""
    if pool.ceil_mode or pool.divisor_override is not None:
        return 0
    sides = {_side(pool.kernel_size), _side(pool.stride)}
    return max(*sides, 0) if len(sides) == 1 and _side(pool.padding) == 0 else 0


def _side(value: int | tuple[int, int]) -> int:
    """A number, or the one number of a pair of equal ones; -1 when they differ."""
    if isinstance(value, int):
        return value
    return value[0] if value[0] == value[1] else -1
