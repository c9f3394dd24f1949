"""``.raw``: the streams EVT 2.0 and EVT 3.0 of Prophesee's cameras, a text and then words; no torch here.

Source: docs.prophesee.ai, "EVT 2.0 Format" and "EVT 3.0 Format".
"""

from __future__ import annotations

import re

import numpy as np

from engram.backbone.data.recordings.events import Damaged, Events, unwrapped, whole, within
from engram.backbone.data.recordings.header import said, text_header

_KINDS_2 = (0x0, 0x1, 0x8, 0xA, 0xE, 0xF)
_KINDS_3 = (0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0xA, 0xE, 0xF)
_ADDR_Y, _ADDR_X, _VECT_BASE, _VECT_12, _VECT_8, _TIME_LOW, _TIME_HIGH = 0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x8


def decode_evt(blob: bytes) -> Events:
    """The changes of contrast in a stream whose text says which of the two formats it has.

    Triggers and what else a camera sends are passed over, and so are events before the first word of time.
    """
    lines, start = text_header(blob, b"%")
    version = said(lines, "evt") or (said(lines, "format") or "").upper().removeprefix("EVT").split(";")[0]
    sensor = _sensor(lines)
    if version.startswith("2.0") or version == "2":
        return _evt2(blob, start, sensor)
    if version.startswith("3.0") or version == "3":
        return _evt3(blob, start, sensor)
    raise Damaged(f"its text says {f'EVT {version}' if version else 'no format'} where EVT 2.0 and 3.0 are read")


def _sensor(lines: list[str]) -> tuple[int, int] | None:
    """``geometry 640x480``, ``format EVT3;width=1280;height=720``, or neither."""
    geometry = re.search(r"(\d+)x(\d+)", said(lines, "geometry") or "")
    if geometry:
        return int(geometry[1]), int(geometry[2])
    sides = dict(re.findall(r"(width|height)=(\d+)", said(lines, "format") or ""))
    return (int(sides["width"]), int(sides["height"])) if len(sides) == 2 else None


def _known(kinds: np.ndarray, allowed: tuple[int, ...], start: int, size: int) -> None:
    if len(strange := np.flatnonzero(~np.isin(kinds, allowed))):
        first = int(strange[0])
        raise Damaged(f"the word at byte {start + first * size:,} is of kind {int(kinds[first]):#x}, which is none")


def _evt2(blob: bytes, start: int, sensor: tuple[int, int] | None) -> Events:
    """Words of 32 bits: kind 4, and for an event 6 bits of time, x 11, y 11; other words have the time's high 28."""
    words = np.frombuffer(whole(blob, start, 4), "<u4")
    kinds = words >> 28
    _known(kinds, _KINDS_2, start, 4)
    high = _latest(kinds == 0x8, (words & 0xFFFFFFF).astype(np.int64))
    chosen = (kinds <= 1) & (high >= 0)
    within(int(chosen.sum()))
    events = words[chosen]
    t = high[chosen] << 6 | (events >> 22 & 0x3F)
    return Events.of(unwrapped(t, 2**34), events >> 11 & 0x7FF, events & 0x7FF, events >> 28, sensor)


def _evt3(blob: bytes, start: int, sensor: tuple[int, int] | None) -> Events:
    """Words of 16 bits, each of which changes what the next ones leave out: row, time, or where a vector begins.

    A vector is a mask of the next 12 or 8 columns; the one after it goes on there.
    """
    words = np.frombuffer(whole(blob, start, 2), "<u2")
    kinds, values = words >> 12, (words & 0xFFF).astype(np.int64)
    _known(kinds, _KINDS_3, start, 2)
    single, vector = kinds == _ADDR_X, (kinds == _VECT_12) | (kinds == _VECT_8)
    # the column of a vector: its base, and the widths of the vectors since
    widths = np.where(kinds == _VECT_12, 12, np.where(kinds == _VECT_8, 8, 0))
    before = np.cumsum(widths) - widths
    base = kinds == _VECT_BASE
    origin = _latest(base, (values & 0x7FF) - before, np.iinfo(np.int64).min)
    sign = _latest(base, values >> 11)
    y = _latest(kinds == _ADDR_Y, values & 0x7FF)
    t = _times3(kinds, values)
    ready = (y >= 0) & (t >= 0)
    at, offset = _lit(values, np.flatnonzero(vector & ready & (sign >= 0)), widths)
    alone = np.flatnonzero(single & ready)
    within(len(at) + len(alone))
    places = np.concatenate((alone, at))
    x = np.concatenate((values[alone] & 0x7FF, origin[at] + before[at] + offset))
    p = np.concatenate((values[alone] >> 11, sign[at]))
    order = np.argsort(places, kind="stable")
    places = places[order]
    return Events.of(t[places], x[order], y[places], p[order], sensor)


def _lit(values: np.ndarray, vectors: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of vectors and the bits that are set in them, a pair for every event."""
    within(int(np.bitwise_count(values[vectors]).sum()))
    masks = values[vectors, None] >> np.arange(12) & (np.arange(12) < widths[vectors, None])
    row, bit = np.nonzero(masks)
    return vectors[row], bit


def _times3(kinds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The time at every word, ``[W] int64``: a high and a low word of 12 bits each; -1 before the first high one.

    A high word that repeats the last one changes nothing, and after another one the low word is 0 until it comes.
    """
    highs = np.flatnonzero(kinds == _TIME_HIGH)
    base = np.full(len(values), -1)
    base[highs] = unwrapped(values[highs], 2**12) << 12
    another = highs[np.diff(base[highs], prepend=-1) != 0]
    lows = np.flatnonzero(kinds == _TIME_LOW)
    told = np.zeros(len(values), bool)
    told[another], told[lows] = True, True
    high = _latest(kinds == _TIME_HIGH, base)
    low = _latest(told, np.where(kinds == _TIME_LOW, values, 0), 0)
    return np.where(high >= 0, high + low, -1)


def _latest(where: np.ndarray, values: np.ndarray, otherwise: int = -1) -> np.ndarray:
    """The value at the latest place so far that is marked, ``[W]``; before the first, ``otherwise``."""
    last = np.maximum.accumulate(np.where(where, np.arange(len(where)), -1))
    return np.where(last >= 0, values[last], otherwise)
