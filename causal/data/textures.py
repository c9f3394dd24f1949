"""Textures that tell classes apart: stripes, checkers, Gabor patches and value noise, drawn anew for every image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.levels import rounded

_TURN = math.pi / 3  # between two classes with textures of one family
_WHITE = 255.0


def textures(which: Tensor, draws: Draws, height: int, width: int, *, part: int) -> Tensor:
    """A texture for each image, ``[B, H, W] uint8``; its place and what is random in it are drawn by lot.

    Classes 0, 1, 2, 3 have stripes, a checkerboard, a Gabor patch and value noise; the next four the same turned by 60
    degrees and of another period, and so on.

    Args:
        which: [B] int64, the class whose texture it is.
        draws: of the images.
        height: of the images, in pixels.
        width: likewise.
        part: of the draws.
    """
    found = torch.zeros(len(which), height, width, dtype=torch.uint8)
    for number in which.unique().tolist():
        rows = (which == number).nonzero()[:, 0]
        make = (_stripes, _checkers, _gabor, _noise)[number % 4]
        levels = make(number // 4, draws.select(rows), height, width, part)
        found[rows] = rounded(_WHITE * levels)
    return found


def _waves(step: int, lot: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Places along and across the direction of a class in periods, ``[B, H, W]`` each; ``lot: [B, 2]`` moves them."""
    angle, period = step * _TURN + _TURN / 2, max(min(height, width) / (3 + step % 3), 3)
    rows, columns = torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    along = (columns * math.cos(angle) + rows * math.sin(angle)) / period
    across = (rows * math.cos(angle) - columns * math.sin(angle)) / period
    return along + lot[:, :1, None], across + lot[:, 1:, None]


def _stripes(step: int, draws: Draws, height: int, width: int, part: int) -> Tensor:
    """Soft edges, half a period each: ``[B, H, W] float64`` in [0, 1], and so do the others."""
    along, _ = _waves(step, draws.uniform(2, part=part), height, width)
    return _square(along)


def _checkers(step: int, draws: Draws, height: int, width: int, part: int) -> Tensor:
    along, across = (_square(each) for each in _waves(step, draws.uniform(2, part=part), height, width))
    return along * across + (1 - along) * (1 - across)


def _gabor(step: int, draws: Draws, height: int, width: int, part: int) -> Tensor:
    """A wave under a Gaussian whose middle is anywhere in the middle half."""
    lot = draws.uniform(4, part=part)
    along, _ = _waves(step, lot[:, :2], height, width)
    rows, columns = torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    down, beside = ((0.25 + 0.5 * lot[:, 2:]) * torch.tensor([height, width])).unbind(1)
    far = (rows - down[:, None, None]) ** 2 + (columns - beside[:, None, None]) ** 2
    near = (-far / (2 * (min(height, width) / 4) ** 2)).exp()
    return 0.5 + 0.5 * near * (2 * math.pi * along).cos()


def _noise(step: int, draws: Draws, height: int, width: int, part: int) -> Tensor:
    """Uniform numbers at the corners of cells, linearly between them."""
    cell = max(min(height, width) / (5 + 2 * (step % 3)), 2)
    down, across = (_between(size, cell) for size in (height, width))
    return down @ draws.uniform(down.shape[1], across.shape[1], part=part) @ across.T


def _between(size: int, cell: float) -> Tensor:
    """How much every corner counts for each of ``size`` pixels, ``[size, corners] float64``."""
    places = torch.arange(size, dtype=torch.float64) / cell
    corners = torch.arange(int(places[-1]) + 2, dtype=torch.float64)
    return (1 - (places[:, None] - corners).abs()).clamp(min=0)


def _square(phase: Tensor) -> Tensor:
    """1 in the first half of a period and 0 in the second, with edges an eighth of a period wide."""
    return ((0.25 - (phase % 1 - 0.5).abs()) * 8 + 0.5).clamp(0, 1)
