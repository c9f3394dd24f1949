"""Noise of every pixel and channel by itself."""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from torch import Tensor

from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.levels import truncated

_DEVIATION = (0.04, 0.06, 0.08, 0.09, 0.10)
_PHOTONS = (500, 250, 100, 75, 50)
_SHARE = (0.01, 0.02, 0.03, 0.05, 0.07)
_WORDS = 2**16


def gaussian_noise(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Normal noise of a standard deviation of 0.04 to 0.1, where white is 1. images: [B, C, H, W] uint8 -> the same."""
    return normal_noise(images, _DEVIATION[severity - 1], draws)


def normal_noise(images: Tensor, deviation: float, draws: Draws) -> Tensor:
    """Normal noise of a standard deviation, where white is 1. images: [B, C, H, W] uint8 -> the same."""
    table = (255 * deviation * normal_quantiles()).floor().short()  # of a sum with a whole number
    noise = table.index_select(0, draws.words(*images.shape[1:]).flatten()).view(images.shape)
    return noise.add_(images).clamp_(0, 255).byte()


def shot_noise(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Poisson noise: white is 500 to 50 photons on average. images: [B, C, H, W] uint8 -> the same."""
    places = draws.words(*images.shape[1:]).add_(images.int() << 16)
    return _seen(severity).index_select(0, places.flatten()).view(images.shape)


def impulse_noise(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """A share of 0.01 to 0.07 of all values becomes white or black. images: [B, C, H, W] uint8 -> the same."""
    share, lot = _SHARE[severity - 1], draws.uniform(*images.shape[1:])
    return images.masked_fill(lot < share, 255).masked_fill(lot < share / 2, 0)


@cache
def normal_quantiles() -> Tensor:
    """Of the middles of 65,536 equal shares of the normal distribution, float64."""
    return torch.special.ndtri((torch.arange(_WORDS, dtype=torch.float64) + 0.5) / _WORDS)


@lru_cache(maxsize=1)  # 16 MB
def _seen(severity: int) -> Tensor:
    """What each of 65,536 equal shares of the photons' distribution makes of each grey level, [256 * 65536] uint8."""
    photons = _PHOTONS[severity - 1]
    counts = torch.arange(photons + 1, dtype=torch.float64)  # more are white as well
    levels = truncated(counts * 255 / photons)
    rates = torch.arange(256, dtype=torch.float64)[:, None] * photons / 255
    below = torch.special.gammaincc(counts + 1, rates)
    below[:, -1] = 1
    ends = (below * _WORDS).round().long()
    times = torch.cat((ends[:, :1], ends.diff(dim=1)), 1)
    return levels.repeat(256).repeat_interleave(times.flatten())
