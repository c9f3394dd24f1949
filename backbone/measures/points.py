"""After which numbers of steps a network is scored."""

from __future__ import annotations


def curve_steps(steps: int) -> list[int]:
    """Where accuracy against steps is measured: powers of two up to ``steps``, and ``steps``.

    >>> curve_steps(8), curve_steps(12)
    ([1, 2, 4, 8], [1, 2, 4, 8, 12])
    """
    powers = [2**k for k in range(steps.bit_length()) if 2**k < steps]
    return [*powers, steps]


def exit_steps(steps: int) -> list[int]:
    """Where a network may stop early: every step up to 64, then where accuracy against steps is measured."""
    return sorted({*range(1, min(steps, 64) + 1), *curve_steps(steps)})
