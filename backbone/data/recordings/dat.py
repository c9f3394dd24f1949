"""``.dat``: Prophesee's files of decoded events, a text and then records; no torch here."""

from __future__ import annotations

import numpy as np

from engram.backbone.data.recordings.events import Damaged, Events, unwrapped, whole
from engram.backbone.data.recordings.header import said, text_header


def decode_dat(blob: bytes) -> Events:
    """Version 2: records of 8 bytes, microseconds 32 bits, then x 14, y 14 and polarity 4 of another 32.

    Source: docs.prophesee.ai, "DAT File Format".
    """
    lines, start = text_header(blob, b"%")
    if (version := said(lines, "version")) != "2":
        raise Damaged(f"its text says {f'version {version}' if version else 'no version'} where version 2 is read")
    if len(blob) < start + 2:
        raise Damaged(f"it ends at byte {len(blob):,}, before the size of a record")
    if blob[start + 1] != 8:
        raise Damaged(f"byte {start + 1:,} says records of {blob[start + 1]} bytes where there are some of 8")
    words = np.frombuffer(whole(blob, start + 2, 8), "<u4").reshape(-1, 2)
    width, height = said(lines, "width"), said(lines, "height")
    told = width is not None and height is not None and width.isdecimal() and height.isdecimal()
    sensor = (int(width or 0), int(height or 0)) if told else None
    where = words[:, 1]
    t = unwrapped(words[:, 0], 2**32)
    return Events.of(t, where & 0x3FFF, where >> 14 & 0x3FFF, where >> 28, sensor)
