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
    """

    low: int
    high: int

    @classmethod
    def of(cls, weight: Tensor, bits: int) -> Levels:
        """Those of a layer's weights."""
        if bool((weight >= 0).all()):
            return cls(0, 2**bits - 1)
        if bool((weight <= 0).all()):
            return cls(-(2**bits - 1), 0)
        return cls(-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1)

    @property
    def largest(self) -> int:
        return max(-self.low, self.high)

    def rounded(self, weight: Tensor, scale: float) -> Tensor:
        """weight times ``scale`` as whole numbers, in floats."""
        return (weight * scale).round().clamp(self.low, self.high)

    def error(self, weight: Tensor, scale: float) -> float:
        """The sum of squares of what rounding changes, in units of the weights."""
        return float((self.rounded(weight, scale) / scale - weight).square().sum())


def best_scale(weight: Tensor, levels: Levels, at_most: float = math.inf) -> float:
    """The scale that loses least: a larger one rounds small weights less and clips the largest.

    Args:
        weight: float64, of a layer.
        at_most: no larger one.
    """
    largest = float(weight.abs().max())
    if largest == 0:
        return min(1.0, at_most)
    scales = {min(levels.largest / (largest * share), at_most) for share in CLIPPED}
    return min(sorted(scales), key=lambda scale: levels.error(weight, scale))


def sqnr(value: Tensor, rounded: Tensor) -> float:
    """Signal to quantisation noise in dB: of all squares of a value to those of what rounding changed."""
    noise = float((value - rounded).double().square().sum())
    signal = float(value.double().square().sum())
    return math.inf if noise == 0 else -math.inf if signal == 0 else 10 * math.log10(signal / noise)


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
