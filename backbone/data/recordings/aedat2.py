"""``.aedat``: AEDAT 2.0, the files of jAER, a text and then addresses with times; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engram.backbone.data.recordings.events import Damaged, Events, unwrapped, whole
from engram.backbone.data.recordings.header import said, text_header


@dataclass(frozen=True)
class _Layout:
    """Where an address has what: shifts and masks of columns, rows and polarity, and bits that no event has."""

    width: int
    height: int
    x: tuple[int, int]
    y: tuple[int, int]
    p: int
    darker: int
    """The polarity bit of an event that got darker."""
    other: int


def _davis(width: int, height: int) -> _Layout:
    return _Layout(width, height, x=(12, 0x3FF), y=(22, 0x1FF), p=11, darker=0, other=0x8000_0400)


_CAMERAS: Mapping[str, _Layout] = {
    "dvs128": _Layout(128, 128, x=(1, 0x7F), y=(8, 0x7F), p=0, darker=1, other=0xFFFF_8000),
    "davis240": _davis(240, 180),
    "davis346": _davis(346, 260),
}


def decode_aedat2(blob: bytes, camera: str | None = None) -> Events:
    """Records of 8 bytes, big-endian: an address and microseconds, 32 bits each.

    How an address reads depends on the camera, which the text may name in the line ``AEChip``: columns are counted from
    the right and rows from the bottom there; the DVS128 alone says 1 for darker. Frames of a DAVIS camera, samples of
    its motion sensor and triggers are passed over.

    Args:
        blob: the file.
        camera: ``dvs128``, ``davis240`` or ``davis346``, where the text names none.

    Source: the extractors of jAER (github.com/SensorsINI/jaer), ``DVS128`` and ``DavisBaseCamera``.
    """
    lines, start = text_header(blob, b"#")
    if not lines or lines[0].upper() != "!AER-DAT2.0":
        first = f"{lines[0][:40]!r}" if lines else "no text"
        raise Damaged(f"it begins with {first} where '#!AER-DAT2.0' is read")
    chip = (said(lines, "aechip:") or "").lower()
    name = next((each for each in _CAMERAS if each in chip), camera)
    if name is None:
        raise Damaged("its text names no camera that is known here, so say --dataset.camera")
    layout = _CAMERAS[name]
    words = np.frombuffer(whole(blob, start, 8), ">u4").reshape(-1, 2)
    words = words[words[:, 0] & layout.other == 0]
    address = words[:, 0].astype(np.int64)
    x, y = (address >> shift & mask for shift, mask in (layout.x, layout.y))
    p = (address >> layout.p & 1) ^ layout.darker
    found = Events.of(unwrapped(words[:, 1], 2**32), x, y, p, (layout.width, layout.height))
    return Events(found.t, layout.width - 1 - found.x, layout.height - 1 - found.y, found.p, found.sensor)
