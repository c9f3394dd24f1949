"""Characters made of random strokes, in alphabets that share a repertoire of strokes; whole numbers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engram.backbone.data.lots import around, below, between, lots

BOX = 1024
"""Side of the square that characters are designed in, in the units of all coordinates here."""
STROKES = 4
"""The most that a character has."""
IN_ALPHABET = 25
"""Characters of an alphabet; the last one may have fewer."""
_REPERTOIRE = 8
_DIRECTIONS = 16
_EXTENT = 720  # of a character's longer side
_SLIMMEST = 2  # no side is shorter than the other by more than this factor, where stretching by it can do that
_CIRCLE = np.array(
    [[round(BOX * math.cos(2 * math.pi * k / _DIRECTIONS)), round(BOX * math.sin(2 * math.pi * k / _DIRECTIONS))]
     for k in range(_DIRECTIONS)]
)  # fmt: skip


@dataclass(frozen=True)
class Characters:
    """N characters: what all drawings of them have in common."""

    curves: np.ndarray
    """``[N, STROKES, 4, 2] int64``: the control points, x and y, of cubic Bezier curves."""
    strokes: np.ndarray
    """``[N] int64``: how many of the curves are drawn."""
    alphabet: np.ndarray
    """``[N] int64``: the number of each one's alphabet, from 0."""


def characters(key: np.ndarray, count: int) -> Characters:
    """The first ``count`` characters of a key ``[1] uint64``.

    An alphabet has a style: how long its strokes are, how much they bend, how often one begins on another, and a
    repertoire of strokes, of which its characters are put together.
    """
    alphabets = lots(key, -(-count // IN_ALPHABET))[0]
    alphabet = np.arange(count) // IN_ALPHABET
    style, own = lots(alphabets, 4)[alphabet], lots(alphabets + np.uint64(1), IN_ALPHABET).reshape(-1)[:count]
    repertoire = _repertoire(alphabets)
    strokes = 2 + (below(style[:, 0], 100) < between(lots(own, 1)[:, 0], 0, 99)) + below(lots(own, 2)[:, 1], 2)
    joined = between(style[:, 1], 30, 90)
    curves = np.zeros((count, STROKES, 4, 2), np.int64)
    for stroke in range(STROKES):
        lot = lots(own + np.uint64(stroke + 1), 7)
        shape = repertoire[alphabet, below(lot[:, 0], _REPERTOIRE)]
        free = np.stack((below(lot[:, 1], 4), below(lot[:, 2], 4)), 1) * (BOX // 3)
        start = free
        if stroke:
            other = curves[np.arange(count), below(lot[:, 3], stroke)]
            place = below(lot[:, 4], 5)[:, None] * 4
            start = np.where((below(lot[:, 5], 100) < joined)[:, None], at(other, place, 16)[:, 0], free)
        curves[:, stroke] = start[:, None] + shape
    return Characters(_fitted(curves, strokes), strokes, alphabet)


def _repertoire(alphabets: np.ndarray) -> np.ndarray:
    """Strokes that begin at (0, 0), ``[A, _REPERTOIRE, 4, 2]``, of alphabets by their keys."""
    style = lots(alphabets + np.uint64(2), 3)
    lot = lots(alphabets + np.uint64(3), _REPERTOIRE, 6)
    long = between(style[:, 0], 400, 800)[:, None]
    length = long * between(lot[..., 0], 60, 140) // 100
    end = _CIRCLE[below(lot[..., 1], _DIRECTIONS)] * length[..., None] // BOX
    across = np.stack((-end[..., 1], end[..., 0]), -1)
    curved = (below(lot[..., 2], 100) < between(style[:, 1], 25, 85)[:, None])[..., None]
    most = between(style[:, 2], BOX // 2, 3 * BOX // 2)[:, None]
    bends = [curved * across * around(lot[..., place], most)[..., None] // BOX for place in (3, 4)]
    return np.stack((0 * end, end // 3 + bends[0], 2 * end // 3 + bends[1], end), -2)


def at(curves: np.ndarray, times: np.ndarray, whole: int) -> np.ndarray:
    """Points ``[..., K, 2]`` of Bezier curves ``[..., 4, 2]`` at ``times: [..., K]`` of ``whole``, rounded down."""
    t, s = times[..., None], whole - times[..., None]
    first, second, third, fourth = (curves[..., None, place, :] for place in range(4))
    return (s**3 * first + 3 * s * s * t * second + 3 * s * t * t * third + t**3 * fourth) // whole**3


def _fitted(curves: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    """Curves whose characters have the middle of their bounding box at (0, 0), and a longer side of `_EXTENT`."""
    points = at(curves, np.arange(17), 16)
    drawn = (np.arange(STROKES) < strokes[:, None])[:, :, None, None]
    low = np.where(drawn, points, BOX * BOX).min((1, 2))
    high = np.where(drawn, points, -BOX * BOX).max((1, 2))
    sides = np.maximum(high - low, 1)
    longer = sides.max(1, keepdims=True)
    target = np.where(sides * _SLIMMEST < longer, np.minimum(sides * _SLIMMEST, longer // _SLIMMEST), sides)
    scale = target * (_EXTENT * BOX) // (longer * sides)
    return (curves - ((low + high) // 2)[:, None, None]) * scale[:, None, None] // BOX
