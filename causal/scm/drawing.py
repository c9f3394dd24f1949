"""Pictures of a shape before a background. All numbers are whole, so that every processor draws the same pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.lots import below, between, lots

SUB = 3
"""Points per pixel along each side, of which a pixel has the mean."""
UNIT = 4 * SUB
"""Of a pixel; points lie at whole numbers."""
ANGLES, SCALE = 64, 1024
"""Turns of a shape, and what sines are multiplied by."""
DARKEST, LIGHTEST = (50, 110), (170, 255)
"""Grey levels of grounds and of shapes."""
CONTRAST, PERIOD = 35, 4
"""How far a texture is above and below its ground, and pixels after which it comes again."""
_AT_ONCE = 128  # whose points stay in the processor's cache


@dataclass(frozen=True)
class Drawn:
    """N pictures: ``images [N, 1, H, W] uint8``, and where their shapes are, ``foreground [N, H, W] bool``."""

    images: Tensor
    foreground: Tensor


def draw(shapes: np.ndarray, backgrounds: np.ndarray, keys: np.ndarray, size: int) -> Drawn:
    """A picture for each of N shapes: where it is, how large, turned and bright is drawn by lot, whatever it is.

    Args:
        shapes: [N], 0 a square, 1 an ellipse, 2 a cross.
        backgrounds: [N], 0 plain, 1 stripes, 2 checks.
        keys: [N] uint64, of the lots (`engram.backbone.data.lots`).
        size: height and width in pixels.
    """
    found = [
        _draw(shapes[span], backgrounds[span], lots(keys[span], 8), size)
        for span in (slice(start, start + _AT_ONCE) for start in range(0, len(shapes), _AT_ONCE))
    ]
    return Drawn(torch.cat([each.images for each in found]), torch.cat([each.foreground for each in found]))


def _draw(shapes: np.ndarray, backgrounds: np.ndarray, lot: np.ndarray, size: int) -> Drawn:
    farthest = size * UNIT // 10
    down, right = (_column(between(lot[:, column], -farthest, farthest)) for column in (0, 1))
    radius = _column(between(lot[:, 2], size * UNIT * 3 // 10, size * UNIT * 2 // 5)) * SCALE
    turns = [round(SCALE * math.sin(2 * math.pi * step / ANGLES)) for step in range(ANGLES)]
    sines, step = np.array(turns, np.float64), below(lot[:, 3], ANGLES)
    sine, cosine = _column(sines[step]), _column(sines[(step + ANGLES // 4) % ANGLES])
    points = torch.arange(size * SUB, dtype=torch.float64) * 4 + 2 - size * UNIT // 2
    y, x = points[None, :, None] - down, points[None, None, :] - right
    inside = _inside(shapes, x * cosine + y * sine, y * cosine - x * sine, radius)
    covered = inside.view(len(shapes), size, SUB, size, SUB).sum((2, 4))
    ground = _column(between(lot[:, 4], *DARKEST)) + CONTRAST * _texture(backgrounds, lot[:, 6:], size)
    light = _column(between(lot[:, 5], *LIGHTEST))
    pixels = (ground * (SUB**2 - covered) + light * covered) // SUB**2
    return Drawn(pixels.to(torch.uint8).unsqueeze(1), covered > SUB**2 // 2)


def _inside(shape: np.ndarray, u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    """Which points [N, P, P] are in the shape, by their place in its own turned axes; radius [N, 1, 1]."""
    found = torch.empty(u.shape, dtype=torch.bool)
    for number, within in enumerate((_square, _ellipse, _cross)):
        chosen = torch.from_numpy(np.flatnonzero(shape == number))
        found[chosen] = within(u[chosen], v[chosen], radius[chosen])
    return found


def _square(u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    return torch.maximum(u.abs_(), v.abs_()) <= radius * 3 // 4


def _ellipse(u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    return u.square_() + 4 * v.square_() <= radius.square()


def _cross(u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    u, v = u.abs_(), v.abs_()
    return (torch.maximum(u, v) <= radius) & (torch.minimum(u, v) <= radius * 3 // 10)


def _texture(backgrounds: np.ndarray, lot: np.ndarray, size: int) -> Tensor:
    """[N, size, size], 0 where it is plain, else -1 or 1, moved by lots [N, 2]."""
    shift = [_column(below(lot[:, axis], PERIOD)) for axis in (0, 1)]
    places = torch.arange(size, dtype=torch.float64)
    rows = (places[None, :, None] + shift[0]) % PERIOD < PERIOD // 2
    columns = (places[None, None, :] + shift[1]) % PERIOD < PERIOD // 2
    which = _column(backgrounds)
    dark = torch.where(which == 1, columns | torch.zeros_like(rows), rows ^ columns)
    return torch.where(which == 0, 0.0, 1.0 - 2.0 * dark.double())


def _column(values: np.ndarray) -> Tensor:
    """[N] -> [N, 1, 1], exact."""
    return torch.from_numpy(values.astype(np.float64))[:, None, None]
