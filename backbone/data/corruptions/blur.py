"""Blur: of a lens, and of a camera that moves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.levels import rounded, truncated

_SIDE = 32  # of the pictures that the constants in pixels are for
_DEVIATION = (0.4, 0.6, 0.7, 0.8, 1.0)
_MOTION = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))  # radius and standard deviation, in pixels


def gaussian_blur(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Every channel smoothed with a standard deviation of 0.4 to 1 pixels of 32; larger pictures by as much more.

    The border goes on as it is. images: [B, C, H, W] uint8 -> the same.
    """
    deviation = _DEVIATION[severity - 1] * in_pixels(images)
    return truncated(smoothed(images.double(), deviation, 4.0, mirrored=False))


def in_pixels(images: Tensor) -> float:
    """By how much constants in pixels grow: the shorter side in 32 pixels, never below 1.

    On a small grid a blur of a fraction of a pixel would be none.
    """
    return max(1.0, min(images.shape[-2:]) / _SIDE)


def smoothed(x: Tensor, deviation: float, truncate: float, *, mirrored: bool) -> Tensor:
    """Smooth both sides of ``x: [..., H, W] float64`` with a Gaussian, cut off after ``truncate`` standard deviations.

    Args:
        x: what is smoothed.
        deviation: in pixels; 0 changes nothing.
        truncate: as above; the kernel has a whole number of pixels.
        mirrored: beyond the border its mirror image, with the border's pixels twice; else the border's pixel again.
    """
    reach = int(truncate * deviation + 0.5)
    if not reach:
        return x
    weights = [math.exp(-0.5 * (k / deviation) ** 2) for k in range(-reach, reach + 1)]
    for side in (-2, -1):
        length = x.shape[side]
        padded = x.index_select(x.ndim + side, _places(length, reach, mirrored))
        x = torch.zeros_like(x)
        for k, weight in enumerate(weights):
            x.add_(padded.narrow(side, k, length), alpha=weight / sum(weights))
    return x


def _places(length: int, reach: int, mirrored: bool) -> Tensor:
    """Which pixel stands at -reach .. length + reach - 1 of a side."""
    places = torch.arange(-reach, length + reach)
    if not mirrored:
        return places.clamp(0, length - 1)
    places = places % (2 * length)
    return torch.minimum(places, 2 * length - 1 - places)


def motion_blur(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """A trail behind everything, in a direction within 45 degrees of a row. images: [B, C, H, W] uint8 -> the same.

    It is one half of a Gaussian of 1 to 2.5 pixels of 32, over the 13 to 19 nearest pixels on a line, as ImageMagick
    makes it, which rounds to the nearest grey level.
    """
    radius, deviation = (constant * in_pixels(images) for constant in _MOTION[severity - 1])
    taps = torch.arange(2 * math.ceil(radius) + 1, dtype=torch.float64)
    weights = (-0.5 * (taps / deviation) ** 2).exp()
    angle = (draws.uniform() - 0.5) * (math.pi / 2)
    across, down = ((taps * part[:, None] - 0.5).ceil().long() for part in (angle.cos(), angle.sin()))  # [B, taps]
    height, width = images.shape[-2:]
    flat = images.flatten(2).double()
    total = torch.zeros_like(flat)
    for tap, weight in enumerate((weights / weights.sum()).tolist()):
        rows = (torch.arange(height) + down[:, tap, None]).clamp(0, height - 1)
        columns = (torch.arange(width) + across[:, tap, None]).clamp(0, width - 1)
        places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
        total += weight * flat.gather(2, places[:, None].expand_as(flat))
    return rounded(total).view_as(images)
