"""Writers, and the pen that draws their strokes: anti-aliased, in whole numbers, many drawings at once."""

from __future__ import annotations

import numpy as np

from engram.backbone.data.glyph_shapes import BOX, STROKES, Characters, at
from engram.backbone.data.lots import around, between, lots

_PHASES = 8  # places within a pixel, in each direction
_FINE = 16  # units of a pixel in which the pen is measured
_WIDTHS = 8
_AT_ONCE = 4000  # drawings, which bounds the memory it takes


def drawn(characters: Characters, key: np.ndarray, drawings: int, size: int) -> np.ndarray:
    """Drawings of characters, one after another, ``[N * drawings, size, size] uint8``: white strokes on black.

    Drawing d of any character of an alphabet is by this alphabet's writer d, who has a slant, a scale, an aspect, a
    place and a pen of his own. Every drawing varies beside that: as a whole, in the place of each stroke, and in
    every control point.
    """
    count = len(characters.strokes)
    everyone = lots(lots(key, 1)[0] + characters.alphabet.astype(np.uint64), drawings).reshape(-1)
    every = lots(lots(key, 2)[0, 1:] + np.arange(count, dtype=np.uint64), drawings).reshape(-1)
    found = np.empty((count * drawings, size, size), np.uint8)
    for start in range(0, len(found), _AT_ONCE):
        which = np.arange(start, min(start + _AT_ONCE, len(found)))
        character, writers, each = which // drawings, everyone[which], every[which]
        points = _points(characters.curves[character], writers, each, size)
        widths = between(lots(writers, 1)[:, 0], 0, _WIDTHS - 1)
        found[which] = _inked(points, characters.strokes[character], widths, size)
    return found


def _points(curves: np.ndarray, writers: np.ndarray, each: np.ndarray, size: int) -> np.ndarray:
    """Where the pen is, ``[M, STROKES, K, 2]``, in `_PHASES` of a pixel from the top left; K grows with the size."""
    lot = lots(each, STROKES, 5, 2)
    curves = curves + around(lot[:, :, :4], 90) + around(lot[:, :, 4:], 70)
    own, now = lots(writers + np.uint64(1), 6), lots(each + np.uint64(1), 6)
    grown = around(own[:, 0], 160)
    xx, yy = (BOX + grown + around(own[:, place], 110) + around(now[:, place], 90) for place in (1, 2))
    slant, turn = around(own[:, 3], 330) + around(now[:, 3], 120), around(own[:, 4], 120) + around(now[:, 4], 120)
    x, y = curves[..., 0], curves[..., 1]
    wide = (slice(None), None, None)
    turned = np.stack((xx[wide] * x + slant[wide] * y - turn[wide] * y, turn[wide] * x + yy[wide] * y), -1) // BOX
    place = BOX // 2 + around(lots(each + np.uint64(2), 2), 90)
    steps = max(3 * size // 2, 32)
    points = at(turned + place[:, None, None], np.arange(steps + 1), steps)
    return np.clip(points * (size * _PHASES) // BOX, 0, size * _PHASES - 1)


def _inked(points: np.ndarray, strokes: np.ndarray, widths: np.ndarray, size: int) -> np.ndarray:
    """Pictures ``[M, size, size] uint8`` of pens of ``widths: [M]`` at ``points: [M, STROKES, K, 2]``."""
    tips = _tips(size)
    reach = tips.shape[-1] // 2
    side = size + 2 * reach
    sheet = np.zeros((len(points), side, side), np.uint8)
    flat, window = sheet.reshape(-1), np.arange(2 * reach + 1)
    window = (window[:, None] * side + window).reshape(-1)
    for stroke in range(points.shape[1]):
        with_it = np.flatnonzero(strokes > stroke)
        corner = with_it * side * side
        for place in range(points.shape[2]):
            x, y = points[with_it, stroke, place].T
            ink = tips[widths[with_it], y % _PHASES, x % _PHASES].reshape(len(with_it), len(window))
            there = (corner + y // _PHASES * side + x // _PHASES)[:, None] + window
            flat[there] = np.maximum(flat[there], ink)
    return sheet[:, reach : reach + size, reach : reach + size]


def _tips(size: int) -> np.ndarray:
    """What a pen leaves around it, ``[_WIDTHS, _PHASES, _PHASES, R, R] uint8``, by its width and its place in a pixel.

    The ink fades over one pixel, with the square of the distance: no roots, and so no rounding that could differ.
    """
    radius = (13 + np.arange(_WIDTHS)) * size // 28  # in _FINE of a pixel: 0.8 to 1.25 at a size of 28
    reach = (int(radius[-1]) + _FINE // 2) // _FINE + 1
    middle = np.arange(-reach, reach + 1) * _FINE + _FINE // 2
    away = middle[None] - (np.arange(_PHASES) * _FINE // _PHASES)[:, None]
    square = away[:, None, :, None] ** 2 + away[None, :, None, :] ** 2
    outer, inner = (radius + _FINE // 2) ** 2, np.maximum(radius - _FINE // 2, 0) ** 2
    wide = (slice(None), None, None, None, None)
    return np.clip(255 * (outer[wide] - square) // (outer - inner)[wide], 0, 255).astype(np.uint8)
