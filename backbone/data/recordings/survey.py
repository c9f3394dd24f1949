"""The sensor of a set of recordings, and what is wrong with them, all of it at once; no torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engram.backbone.data.binning import Binning
from engram.backbone.data.event_options import EventsOptions
from engram.backbone.data.names import shown
from engram.backbone.data.recordings.reading import read
from engram.backbone.errors import UserError, must

_MOST = 10  # recordings that are named
_MOST_SIDE = 4096
_MOST_VALUES = 2**28


@dataclass(frozen=True)
class _Seen:
    path: Path
    sensor: tuple[int, int] | None
    reach: tuple[int, int]
    """Width and height of the smallest sensor that has all its events."""


def surveyed(paths: Sequence[Path], options: EventsOptions) -> tuple[Binning | None, list[str]]:
    """Read every recording once.

    Returns:
        How all of them become frames, None where that is not known for their faults; and these, a line each.
    """
    seen: list[_Seen] = []
    faults: list[str] = []
    for path in paths:
        try:
            events = read(path, options)
            seen.append(_Seen(path, events.sensor, (int(events.x.max()) + 1, int(events.y.max()) + 1)))
        except UserError as error:
            faults.append(str(error))
    problems = faults[:_MOST]
    if len(faults) > _MOST:
        rest = f"{len(faults) - _MOST} more of {len(paths)} that are not"
        problems.append(str(must("every recording", "a readable file", rest, "Restore them or take them out.")))
    if not seen:
        return None, problems
    sensor = (_side(seen, 0, options.width), _side(seen, 1, options.height))
    problems += _differences(seen, sensor, options)
    crop = None if options.crop is None else (options.crop, options.crop)
    window = None if options.window_ms is None else options.window_ms * 1000
    binning = Binning(sensor, 2, options.frames, options.pool, options.by, window, options.most, crop)
    problems += _too_large(binning, options)
    return (None if problems else binning), problems


def _side(seen: Sequence[_Seen], side: int, given: int | None) -> int:
    """As the user says, or the largest that any file tells, or else what the events take."""
    told = [each.sensor[side] for each in seen if each.sensor is not None]
    return given or max(told, default=0) or max(each.reach[side] for each in seen)


def _differences(seen: Sequence[_Seen], sensor: tuple[int, int], options: EventsOptions) -> list[str]:
    """A line where files tell of several sensors and no option settles it, and one where events lie outside of it."""
    problems = []
    told: dict[tuple[int, int], Path] = {}
    for each in seen:
        if each.sensor is not None:
            told.setdefault(each.sensor, each.path)
    if len(told) > 1 and (options.width is None or options.height is None):
        got = ", ".join(f"{width} x {height} ({shown(path)})" for (width, height), path in list(told.items())[:3])
        step = "Say --dataset.width and --dataset.height of the largest, or take them apart."
        problems.append(str(must("every recording of the set", "of the same sensor", got, step)))
    outside = [each for each in seen if each.reach[0] > sensor[0] or each.reach[1] > sensor[1]]
    if outside:
        first = outside[0]
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        got = f"one at column {first.reach[0] - 1} or row {first.reach[1] - 1} in {shown(first.path)}{more}"
        rule = f"on the sensor of {sensor[0]} x {sensor[1]}"
        problems.append(str(must("every event", rule, got, "Say --dataset.width and --dataset.height.")))
    return problems


def _too_large(binning: Binning, options: EventsOptions) -> list[str]:
    problems = []
    width, height = binning.sensor
    if max(width, height) > _MOST_SIDE:
        step = "Say --dataset.width and --dataset.height, or look into the files."
        problems.append(must("a sensor", f"at most {_MOST_SIDE} wide and high", f"{width} x {height}", step))
    elif options.crop is not None and options.crop > min(width, height):
        got, step = f"{options.crop} of {width} x {height}", "Take less, or leave it out."
        problems.append(must("--dataset.crop", "at most the shorter side of the sensor", got, step))
    elif (count := math.prod(binning.shape)) > _MOST_VALUES:
        got = f"{count:,}: {' x '.join(map(str, binning.shape))}"
        step = "Take fewer --dataset.frames, or a larger --dataset.pool."
        problems.append(must("the frames of a recording", f"at most {_MOST_VALUES:,} numbers", got, step))
    return [str(problem) for problem in problems]
