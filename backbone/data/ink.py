"""Small pictures of digits as stencils to paint with, black in a white edge, all of one size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LONGER = 17
"""Pixels of the longer side of a digit without its edge: Helvetica Bold of 384 points in 512 pixels, seen at 32."""
PATCH = 22
"""Height and width of a stencil; the middle of the digit is the middle of it."""
NOTHING = -256
"""A pixel of a stencil that changes nothing."""
_MARKED = 64  # a pixel of at least this belongs to a digit
_UNIT = 64  # weights are counted in 1 / _UNIT
_BESIDE, _ACROSS = (
    160,
    80,
)  # of 256: what an edge of 5/8 pixels covers of a pixel beside the ink, and corner to corner
_AT_ONCE = 500  # pictures, which stay in the processor's cache


@dataclass(frozen=True)
class Stencils:
    """What N digits do to the pixels around their middles.

    Attributes:
        paint: [N, PATCH, PATCH] int16, two bytes a pixel: the upper how much is kept of the brightness there, of 255,
            the lower what is added to it.
        start: [N, 2] int64, the first row and column of a digit's edge.
        extent: [N, 2] int64, rows and columns that it takes, edge included.
    """

    paint: Tensor
    start: Tensor
    extent: Tensor


def stencils(pictures: Tensor) -> Stencils:
    """Digits of one size, whatever the size of their pictures; pictures ``[N, H, W] uint8``, bright on dark.

    A digit is the box of the pixels of at least a quarter of full brightness: the whole picture where there are none.
    It is enlarged or shrunk, linearly, until the longer side of its box is `LONGER` pixels. Every number is a whole one
    that float32 holds exactly: the same pictures give the same stencils on every processor.
    """
    first, last = _boxes(pictures.numpy())
    scale = (last - first).max(1) / LONGER
    middle = (first + last) / 2
    paint = torch.empty(len(pictures), PATCH, PATCH, dtype=torch.int16)
    for begin in range(0, len(pictures), _AT_ONCE):
        span = slice(begin, begin + _AT_ONCE)
        down, across = (_weights(middle[span, axis], scale[span], pictures.shape[1 + axis]) for axis in range(2))
        level = (down @ pictures[span].float() @ across.mT / _UNIT**2 + 0.5).floor()
        paint[span] = _black_in_white((2 * level - 128).clamp(0, 255).short())  # steeper, as a scaled edge is soft
    extent = np.ceil((last - first) / scale[:, None] / 2).astype(np.int64) * 2 + 2
    return Stencils(paint, torch.from_numpy((PATCH - extent) // 2), torch.from_numpy(extent))


def painted(pixels: Tensor, paint: Tensor) -> Tensor:
    """``pixels: [...] int16`` in 0..255 with the pixels of stencils ``[...] int16`` over them."""
    return shares(pixels, paint >> 8 & 255) + (paint & 255)


def shares(values: Tensor, of_255: Tensor) -> Tensor:
    """``values: [...] int16`` in 0..255 times ``of_255: [...] int16`` in 255ths, rounded."""
    product = values.int() * of_255 + 128
    return ((product + (product >> 8)) >> 8).short()  # exactly a 255th, without dividing


def _boxes(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the digits of ``[N, H, W]`` begin and end, rows and columns, ``[N, 2] float64`` each."""
    marked = pictures >= _MARKED
    marked[~marked.any((1, 2))] = True
    sides = [np.any(marked, axis) for axis in (2, 1)]
    first = np.stack([side.argmax(1) for side in sides], 1)
    last = np.stack([side.shape[1] - side[:, ::-1].argmax(1) for side in sides], 1)
    return first.astype(np.float64), last.astype(np.float64)


def _weights(middle: np.ndarray, scale: np.ndarray, length: int) -> Tensor:
    """``[N, PATCH, length] float32`` of whole numbers: what each pixel of a picture adds to each of its stencil.

    Linear interpolation when enlarging, a triangle as wide as its share when shrinking; beyond a picture there is none.
    """
    wanted = middle[:, None] + (np.arange(PATCH) + 0.5 - PATCH / 2) * scale[:, None]
    distance = np.abs(np.arange(length) + 0.5 - wanted[..., None])
    wide = np.maximum(scale, 1)[:, None, None]
    return torch.from_numpy(np.rint(np.maximum(1 - distance / wide, 0) / wide * _UNIT).astype(np.float32))


def _black_in_white(ink: Tensor) -> Tensor:
    """The paint of ``ink: [N, H, W] int16``, how much of a pixel is ink, of 255: white on it and around it, then black.

    An edge covers so much of a pixel as the most that any pixel around would cover of it.
    """
    around = F.pad(ink, (1, 1, 1, 1))
    rows, columns = around[:, :-2].maximum(around[:, 2:]), around[..., :-2].maximum(around[..., 2:])
    beside = rows[..., 1:-1].maximum(columns[:, 1:-1])
    across = rows[..., :-2].maximum(rows[..., 2:])
    edge = ink.maximum((beside.int() * _BESIDE // 256).short()).maximum((across.int() * _ACROSS // 256).short())
    added = shares(edge, 255 - ink)
    return (255 - ink - added) * 256 + added
