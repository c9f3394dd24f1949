"""From events to frames: counts in spans of time or of events; no torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

By = Literal["time", "count"]


@dataclass(frozen=True)
class Binning:
    """Where and when events are counted together.

    Args:
        sensor: width and height.
        channels: 2, the darker and the brighter events; with 1 what an event says of that is left aside.
        frames: T.
        pool: side of the squares of pixels that are added up.
        by: equal spans of the time between the first and the last event, or equally many events.
        window: microseconds of a frame, counted from the first event: later events are left out, and frames after
            the last event are empty. None: as ``by`` says.
        most: what more events than this count as, at most 255.
        crop: width and height of the middle of the sensor, outside of which events are left out. None: all of it.
    """

    sensor: tuple[int, int]
    channels: int
    frames: int
    pool: int = 1
    by: By = "time"
    window: float | None = None
    most: int = 255
    crop: tuple[int, int] | None = None

    @property
    def in_shape(self) -> tuple[int, int, int]:
        width, height = self.crop or self.sensor
        return self.channels, -(-height // self.pool), -(-width // self.pool)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``T, C, H, W`` of a recording's frames."""
        return self.frames, *self.in_shape

    def __call__(self, t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Count the events of a recording, each field ``[E]`` of whole numbers -> ``[T, C, H, W] uint8``.

        Raises:
            ValueError: an event lies outside of the sensor.

        >>> fields = np.array([0, 9, 10]), np.array([1, 0, 1]), np.array([0, 0, 0]), np.array([1, 0, 1])
        >>> Binning((2, 1), 2, frames=2)(*fields).tolist()
        [[[[0, 0]], [[0, 1]]], [[[1, 0]], [[0, 1]]]]
        """
        if not len(t):
            return np.zeros(self.shape, np.uint8)
        t, x, y = (values.astype(np.int64) for values in (t, x, y))
        p = p.astype(np.int64) if self.channels > 1 else np.zeros_like(t)
        width, height = self.sensor
        for what, values, limit in (("x", x, width), ("y", y, height), ("polarity", p, self.channels)):
            if values.min() < 0 or values.max() >= limit:
                raise ValueError(f"an event has {what} {values.min() if values.min() < 0 else values.max()}")
        frame = self._frames(t)
        kept = frame < self.frames
        if self.crop is not None:
            x, y = x - (width - self.crop[0]) // 2, y - (height - self.crop[1]) // 2
            kept &= (x >= 0) & (x < self.crop[0]) & (y >= 0) & (y < self.crop[1])
        where = tuple(values[kept] for values in (frame, p, y // self.pool, x // self.pool))
        counts = np.bincount(np.ravel_multi_index(where, self.shape), minlength=math.prod(self.shape))
        return counts.clip(max=self.most).astype(np.uint8).reshape(self.shape)

    def _frames(self, t: np.ndarray) -> np.ndarray:
        """The frame of every event, or a number from T on for none."""
        since = t - t.min()
        if self.window is not None:
            return (since // self.window).astype(np.int64)
        if self.by == "time":
            return since * self.frames // (since.max() + 1)
        return np.arange(len(t)) * self.frames // len(t)
