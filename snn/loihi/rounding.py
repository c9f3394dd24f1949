"""Numbers of a network as the whole numbers that a chip has for them: weights, decays, biases."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MANTISSA = 4095
"""Largest bias mantissa."""
EXPONENTS = range(8)
"""Of a bias and of weights."""
CLIPPED = [0.95**place for place in range(50)]
"""Shares of the largest weight that are tried as the largest that is kept."""


@dataclass(frozen=True)
class Levels:
    """The whole numbers a weight can be, ``low`` to ``high``.

    Weights of one sign have the sign for all of them and one bit more each.

    Attributes:
        alike: every neuron (or channel) counts alike, as weights are in units of their thresholds.
    """

    low: int
    high: int
    alike: bool = True

    @classmethod
    def of(cls, weight: Tensor, bits: int, alike: bool = True) -> Levels:
        """Those of a layer's weights."""
        if bool((weight >= 0).all()):
            return cls(0, 2**bits - 1, alike)
        if bool((weight <= 0).all()):
            return cls(-(2**bits - 1), 0, alike)
        return cls(-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1, alike)

    @property
    def largest(self) -> int:
        return max(-self.low, self.high)

    def rounded(self, weight: Tensor, scale: float) -> Tensor:
        """weight times ``scale`` as whole numbers, in floats."""
        return (weight * scale).round().clamp(self.low, self.high)

    def balanced(self, weight: Tensor, scale: float) -> Tensor:
        """As `rounded`, but so that every kernel [.., kH, kW] (every row of a matrix) keeps its sum.

        What arrives is mostly alike from place to place, and never below zero: errors that add up there are those that
        cost most. Those weights are rounded the other way that were nearest to it.
        """
        exact = (weight * scale).clamp(self.low, self.high)
        kernels = exact.flatten(2) if exact.ndim > 2 else exact
        rounded = kernels.round()
        missing = (kernels - rounded).sum(-1, keepdim=True).round()
        left = (kernels - rounded) * missing.sign()
        left = left.masked_fill(~self._can(rounded + missing.sign()), -1.0)
        order = left.argsort(-1, descending=True).argsort(-1)
        turned = (order < missing.abs()) & (left > -0.5)
        return (rounded + turned * missing.sign()).view_as(exact)

    def _can(self, values: Tensor) -> Tensor:
        return (values >= self.low) & (values <= self.high)

    def error(self, weight: Tensor, scale: float) -> float:
        """What rounding changes: noise to signal of all weights, or with ``alike`` row by row, summed over them.

        Some channels of converted networks hardly ever fire and have tiny thresholds: weights that are large beside
        them must not decide how coarse all others are. So rows of more than four times the median count by what is
        left of them.
        """
        noise = (self.rounded(weight, scale) / scale - weight).square().flatten(1).sum(1)
        signal = weight.square().flatten(1).sum(1)
        if not self.alike:
            return float(noise.sum() / signal.sum().clamp_min(1e-30))
        middle = signal.median().clamp_min(1e-30)
        return float((noise / torch.where(signal > 16 * middle, signal, middle)).sum())


def best_scale(weight: Tensor, levels: Levels, at_most: float = math.inf) -> float:
    """The scale that loses least: a larger one rounds small weights less and clips the largest.

    Args:
        weight: float64, of a layer.
        at_most: no larger one.
    """
    rows = weight.abs().flatten(1).amax(1)
    rows = rows[rows > 0]
    if len(rows) == 0:
        return min(1.0, at_most)
    ends = {float(rows.max()), float(rows.median())}  # far apart where some neurons have tiny thresholds
    scales = {min(levels.largest / (end * share), at_most) for end in ends for share in CLIPPED}
    return min(sorted(scales), key=lambda scale: levels.error(weight, scale))


def sqnr(value: Tensor, rounded: Tensor) -> float:
    """Signal to quantisation noise in dB of a layer's weights, [out, ...]: the mean over what each output gets."""
    signal = value.double().flatten(1).square().sum(1)
    noise = (value - rounded).double().flatten(1).square().sum(1)[signal > 0]
    mean = float((noise / signal[signal > 0]).mean()) if len(noise) else 0.0
    return math.inf if mean == 0 else -10 * math.log10(mean)


def mantissas(values: Tensor, least: int = 0) -> tuple[Tensor, int] | None:
    """Whole numbers m and the least exponent e from ``least`` on with m 2 ** e near ``values``; None if none fits."""
    largest = float(values.abs().max())
    for exponent in range(least, len(EXPONENTS)):
        if round(largest / 2**exponent) <= MANTISSA:
            return (values / 2**exponent).round().to(torch.int32), exponent
    return None


def voltage_decay(kept: float) -> int:
    """dv for the share of the potential left after a step, (4096 - dv) / 4096 on the chip."""
    return min(max(4096 - round(4096 * kept), 0), 4095)


def current_decay(kept: float) -> int:
    """du for the share of the current left after a step, (4095 - du) / 4096 on the chip."""
    return min(max(4095 - round(4096 * kept), 0), 4095)
