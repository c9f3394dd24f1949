"""Fewer, larger pixels."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.levels import rounded

_SHARE = (0.95, 0.9, 0.85, 0.75, 0.65)


def pixelate(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Made smaller, to 0.95 to 0.65 of both sides, and large again, both with a box as Pillow has it.

    images: [B, C, H, W] uint8 -> the same.
    """
    height, width = images.shape[-2:]
    share = _SHARE[severity - 1]
    small = max(1, int(height * share)), max(1, int(width * share))
    return _resized(_resized(images, *small), height, width)


def _resized(images: Tensor, height: int, width: int) -> Tensor:
    """[..., H, W] uint8 -> [..., height, width]: first the rows, then the columns, whole grey levels in between."""
    wide = rounded(images.double() @ _box(images.shape[-1], width).T)
    return rounded(_box(images.shape[-2], height) @ wide.double())


@cache
def _box(old: int, new: int) -> Tensor:
    """``[new, old] float64``: each new pixel is the mean of the old ones whose middles lie in it.

    Enlarging, it is the one in which its middle lies. Middles on an edge fall as they do in Pillow, by the same
    arithmetic.
    """
    scale = old / new
    width = max(scale, 1.0)
    table = torch.zeros(new, old, dtype=torch.float64)
    for row in range(new):
        middle = (row + 0.5) * scale
        ends = (int(middle + half + 0.5) for half in (-0.5 * width, 0.5 * width))
        within = [place for place in range(*ends) if -0.5 < (place - middle + 0.5) * (1 / width) <= 0.5]
        table[row, within] = 1 / len(within)
    return table
