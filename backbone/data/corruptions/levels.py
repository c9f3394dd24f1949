"""From computed grey levels to the whole numbers that pictures hold.

What stands within a millionth of a grey level is that level: rounding errors of the arithmetic, which differ from
processor to processor, decide nothing.
"""

from __future__ import annotations

from torch import Tensor

_ERROR = 1e-6


def truncated(levels: Tensor) -> Tensor:
    """The next lower grey level, as the published files were made. levels: [...] float64 -> uint8.

    >>> import torch
    >>> truncated(torch.tensor([-3.0, 16.99, 16.9999999, 300.0])).tolist()
    [0, 16, 17, 255]
    """
    return (levels + _ERROR).floor().clamp(0, 255).byte()


def rounded(levels: Tensor) -> Tensor:
    """The nearest grey level, halves up, as software for pictures does it. levels: [...] float64 -> uint8."""
    return truncated(levels + 0.5)
