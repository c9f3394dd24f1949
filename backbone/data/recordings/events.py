"""What every decoder of recordings gives, and how it says that a file is damaged; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

MOST_EVENTS = 2**25
"""Of one recording, which take 17 bytes each."""


class Damaged(ValueError):
    """A file that is not what its name says; the text tells what was found and where, without the file's name."""


@dataclass(frozen=True)
class Events:
    """The E events of one recording, in the order of their times."""

    t: np.ndarray
    """``[E] int64`` microseconds, counted on where the file's counter began anew."""
    x: np.ndarray
    """``[E] int32`` columns from the left."""
    y: np.ndarray
    """``[E] int32`` rows from the top."""
    p: np.ndarray
    """``[E] uint8``: 0 where it got darker, 1 where it got brighter."""
    sensor: tuple[int, int] | None = None
    """Width and height as the file tells them; None: it does not."""

    @classmethod
    def of(
        cls, t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray, sensor: tuple[int, int] | None = None
    ) -> Self:
        """Events from arrays ``[E]`` of any whole numbers. Those out of order are sorted, equal times as they come.

        Raises:
            Damaged: there are none or too many, or one lies outside of the sensor.
        """
        within(len(t))
        if not len(t):
            raise Damaged("it holds no event")
        for what, values, limit in (("x", x, sensor and sensor[0]), ("y", y, sensor and sensor[1]), ("polarity", p, 2)):
            low, high = int(values.min()), int(values.max())
            if low < 0 or high >= (limit or 2**31):
                rule = f"of a sensor of {sensor[0]} x {sensor[1]}" if sensor and what != "polarity" else ""
                raise Damaged(f"an event has {what} {low if low < 0 else high} {rule}".rstrip())
        t = t.astype(np.int64)
        if len(t) > 1 and bool((t[1:] < t[:-1]).any()):
            order = np.argsort(t, kind="stable")
            t, x, y, p = t[order], x[order], y[order], p[order]
        return cls(t, x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8), sensor)

    def __len__(self) -> int:
        return len(self.t)


def within(count: int) -> int:
    """The number of events itself.

    Raises:
        Damaged: that many are not read.
    """
    if count > MOST_EVENTS:
        raise Damaged(f"it holds {count:,} events and at most {MOST_EVENTS:,} are read, so cut it")
    return count


def whole(blob: bytes, start: int, size: int) -> memoryview:
    """What stands from ``start`` on, in records of ``size`` bytes.

    Raises:
        Damaged: the last one is cut off.
    """
    rest = memoryview(blob)[start:]
    if len(rest) % size:
        raise Damaged(f"it ends within the record at byte {len(blob) - len(rest) % size:,}")
    return rest


def unwrapped(t: np.ndarray, period: int) -> np.ndarray:
    """Times ``[E]`` of a counter that begins anew after ``period``, counted on; steps back of less than half are none.

    >>> unwrapped(np.array([6, 7, 0, 1, 0, 7]), 8).tolist()
    [6, 7, 8, 9, 8, 7]
    """
    steps = np.diff(t.astype(np.int64))
    turns = np.cumsum((steps < -period // 2).astype(np.int64) - (steps > period // 2))
    found = t.astype(np.int64)
    found[1:] += period * turns
    return found
