"""Which parts of a network are set, one after another: whole stages, their channels, and regions of their maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from engram.causal.intervening.place import Box, Place

Level = str
"""Of a cause: ``stage``, ``channel`` or ``region``."""


@dataclass(frozen=True)
class Cause:
    """Something whose effect is asked for: the whole output of a stage, one of its channels, or cells of its maps.

    Attributes:
        stage: its number, from 0.
        channel: the channel's, from 0; None: all.
        region: the cells; None: all.
    """

    stage: int
    channel: int | None = None
    region: Box | None = None

    @property
    def level(self) -> Level:
        """What it is."""
        return "region" if self.region is not None else "stage" if self.channel is None else "channel"

    @property
    def place(self) -> Place:
        """Where it is set."""
        return Place(self.stage, channels=None if self.channel is None else (self.channel,), region=self.region)

    def __str__(self) -> str:
        parts = [f"stage {self.stage}"]
        parts += [] if self.channel is None else [f"channel {self.channel}"]
        if self.region is not None:
            top, left, bottom, right = self.region
            parts.append(f"rows {top} to {bottom - 1}, columns {left} to {right - 1}")
        return ", ".join(parts)


def causes(shapes: Sequence[Sequence[int]], cells: int) -> list[Cause]:
    """Every stage, every channel, and every region, where maps are cut into ``cells`` by ``cells`` of them.

    Maps of fewer rows or columns are cut into as many as they have; one that would be whole is left out.

    Args:
        shapes: [..., C, H, W] of every stage.

    >>> [str(each) for each in causes([(1, 4, 1)], 2)][:3]
    ['stage 0', 'stage 0, channel 0', 'stage 0, rows 0 to 1, columns 0 to 0']
    """
    found: list[Cause] = []
    for stage, (*_, channels, height, width) in enumerate(shapes):
        found.append(Cause(stage))
        found += [Cause(stage, channel) for channel in range(channels)]
        boxes = [
            Box(top, left, bottom, right)
            for (top, bottom), (left, right) in product(_spans(height, cells), _spans(width, cells))
        ]
        found += [Cause(stage, region=box) for box in boxes if len(boxes) > 1]
    return found


def _spans(size: int, parts: int) -> Iterator[tuple[int, int]]:
    """Where the parts of so many cells begin and end, about as long each."""
    parts = min(size, parts)
    return pairwise(round(number * size / parts) for number in range(parts + 1)) if parts else iter(())
