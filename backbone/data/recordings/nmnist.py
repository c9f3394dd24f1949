"""``.bin``: the recordings of N-MNIST and N-Caltech101; no torch here."""

from __future__ import annotations

import numpy as np

from engram.backbone.data.recordings.events import Events, whole

_OVERFLOW_ROW = 240
_OVERFLOW = 2**13


def decode_nmnist(blob: bytes) -> Events:
    """Five bytes an event, big-endian: column 8 bits, row 8, polarity 1, microseconds 23.

    An event in row 240 is none: it says that the clock ran over, and 2**13 microseconds come on top of all times from
    there on.

    Source: Orchard et al. 2015 (doi 10.3389/fnins.2015.00437), and its authors' reader ``eventvision.py``.
    """
    rows = np.frombuffer(whole(blob, 0, 5), np.uint8).reshape(-1, 5).astype(np.int32)
    over = rows[:, 1] == _OVERFLOW_ROW
    t = ((rows[:, 2] & 127) << 16 | rows[:, 3] << 8 | rows[:, 4]) + np.cumsum(over) * _OVERFLOW
    kept = rows[~over]
    return Events.of(t[~over], kept[:, 0], kept[:, 1], kept[:, 2] >> 7)
