"""The lines of a ledger (``metrics.jsonl``): each one numbered and with a checksum, so that a lost one is noticed.

A line is a JSON object ``{"t", "step", "name", "value", "n", "crc"}``: ``n`` counts lines from 0, ``crc`` is the CRC-32
of what stands before it. Lines that engram 0.2.0 wrote have neither; they stand before all others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from os import SEEK_END
from pathlib import Path
from typing import Any
from zlib import crc32

from engram.benchmarks.records.inside import open_inside
from engram.benchmarks.records.stored import decoded

LEDGER = "metrics.jsonl"
_MARK = b', "crc": "'
_TAIL = 2**16  # bytes, of many lines
_PLAIN = {"t", "step", "name", "value"}


@dataclass(frozen=True)
class Line:
    """One measurement: ``t`` in unix milliseconds."""

    t: int
    step: int
    name: str
    value: float


@dataclass(frozen=True)
class Reading:
    """What a ledger holds. ``whole``: how many lines stand before the first that was lost; ``lost``: which one."""

    lines: list[Line]
    whole: int
    lost: str


def encoded(line: Line, number: int) -> bytes:
    """A line of the file, its end included."""
    return sealed(vars(line), number)


def sealed(values: Mapping[str, Any], number: int) -> bytes:
    """A line of any file of numbered lines, its end included."""
    head = json.dumps({**values, "n": number})[:-1].encode()
    return head + _MARK + f'{crc32(head):08x}"}}\n'.encode()


def unsealed(text: bytes) -> tuple[dict[str, Any], int]:
    """(what `sealed` was given, the number) of a line without its end.

    Raises:
        ValueError: it is damaged.
    """
    said = decoded(text)
    head, mark, _ = text.rpartition(_MARK)
    if not mark or said.pop("crc", None) != f"{crc32(head):08x}":
        raise ValueError("another checksum")
    return said, _typed(said.pop("n", None), int)


def parse_lines(raw: bytes) -> Iterator[Line]:
    """The measurements in ``raw``, whole lines of a ledger; those that are damaged are passed over."""
    for text in raw.split(b"\n"):
        try:
            yield _decoded(text)[0]
        except ValueError:
            continue


def read_ledger(path: Path) -> Reading:
    """All whole lines of a ledger, in the order in which they were written; a torn last line is left out."""
    lines: list[Line] = []
    lost = None
    try:
        for place, line, gap in _walked(path):
            lost = place if gap and lost is None else lost
            if line is not None:
                lines.append(line)
    except FileNotFoundError:
        return Reading([], 0, "")
    except OSError as error:
        return Reading([], 0, str(error.strerror))
    return Reading(lines, len(lines), "") if lost is None else Reading(lines, lost, _lost_at(lost))


def lost_in(path: Path) -> str:
    """What a ledger has lost, as `Reading` says it, without holding its lines."""
    try:
        return next((_lost_at(place) for place, _, gap in _walked(path) if gap), "")
    except FileNotFoundError:
        return ""
    except OSError as error:
        return str(error.strerror)


@dataclass(frozen=True)
class Extent:
    """What a ledger spans: its first and last line, the highest step, and the names of its metrics."""

    first: Line
    last: Line
    step: int
    names: frozenset[str]


def extent_of(path: Path) -> Extent | None:
    """The extent of a ledger, whose lines are not held; None where it has none."""
    first, last, step, names = None, None, 0, set[str]()
    try:
        for _, line, _ in _walked(path):
            if line is not None:
                first, last, step = first or line, line, max(step, line.step)
                names.add(line.name)
    except OSError:
        return None
    return None if first is None or last is None else Extent(first, last, step, frozenset(names))


def first_line(path: Path) -> Line | None:
    """The first whole line of a ledger, without reading on."""
    try:
        return next((line for _, line, _ in _walked(path) if line is not None), None)
    except OSError:
        return None


def last_line(path: Path) -> Line | None:
    """The last whole line of a ledger that is not damaged, from its end alone."""
    try:
        with open_inside(path.parent, path.name) as file:
            file.seek(max(0, file.seek(0, SEEK_END) - _TAIL))
            *texts, _ = file.read().split(b"\n")
    except OSError:
        return None
    return next(parse_lines(b"\n".join(reversed(texts))), None)


def _walked(path: Path) -> Iterator[tuple[int, Line | None, bool]]:
    """(place, line or None where it is damaged, whether it or one right before it is lost) of each whole line.

    Raises:
        OSError: there is no such file, or none that may be read.
    """
    last, sealed = -1, False
    with open_inside(path.parent, path.name) as file:
        for place, text in enumerate(file):
            if not text.endswith(b"\n"):
                return
            try:
                line, number = _decoded(text[:-1])
            except ValueError:
                yield place, None, True
                continue
            if number is None and not sealed:
                number = last + 1
            elif number is None or number <= last:  # what stands behind numbered lines is numbered, and in their order
                yield place, None, True
                continue
            else:
                sealed = True
            yield place, line, number > last + 1
            last = number


def _lost_at(place: int) -> str:
    return f"line {place + 1} is not the one that was written"


def digest(path: Path) -> str:
    """The sha256 of a ledger; "" where there is none."""
    try:
        with open_inside(path.parent, path.name) as file:
            found = sha256()
            while part := file.read(2**20):
                found.update(part)
            return found.hexdigest()
    except OSError:
        return ""


def _decoded(text: bytes) -> tuple[Line, int | None]:
    """(line, its number); a line of engram 0.2.0 has none.

    Raises:
        ValueError: the text is damaged.
    """
    said, number = decoded(text), None
    if said.keys() != _PLAIN:
        said, number = unsealed(text)
    if said.keys() != _PLAIN:
        raise ValueError("other entries")
    t, step, name = _typed(said["t"], int), _typed(said["step"], int), _typed(said["name"], str)
    return Line(t, step, name, float(_typed(said["value"], int, float))), number


def _typed(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise ValueError(f"{value!r} is of another type")
    return value
