"""The lines of a ledger (``metrics.jsonl``): each one numbered and with a checksum, so that a lost one is noticed.

A line is a JSON object ``{"t", "step", "name", "value", "n", "crc"}``: ``n`` counts lines from 0, ``crc`` is the CRC-32
of what stands before it. Lines that engram 0.2.0 wrote have neither; they stand before all others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

from engram.benchmarks.records.stored import decoded, read_bytes

LEDGER = "metrics.jsonl"
_MARK = b', "crc": "'
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
    head = json.dumps({**vars(line), "n": number})[:-1].encode()
    return head + _MARK + f'{crc32(head):08x}"}}\n'.encode()


def parse_lines(raw: bytes) -> Iterator[Line]:
    """The measurements in ``raw``, whole lines of a ledger; those that are damaged are passed over."""
    for text in raw.split(b"\n"):
        try:
            yield _decoded(text)[0]
        except ValueError:
            continue


def read_ledger(path: Path) -> Reading:
    """All whole lines of a ledger, in the order in which they were written; a torn last line is left out."""
    try:
        *texts, _ = read_bytes(path).split(b"\n")
    except FileNotFoundError:
        return Reading([], 0, "")
    except OSError as error:
        return Reading([], 0, str(error.strerror))
    lines: list[Line] = []
    lost: list[int] = []  # their places, or those of the lines behind them
    last, sealed = -1, False
    for place, text in enumerate(texts):
        try:
            line, number = _decoded(text)
        except ValueError:
            lost.append(place)
            continue
        if number is None and not sealed:
            number = last + 1
        elif number is None or number <= last:  # what stands behind numbered lines is numbered, and in their order
            lost.append(place)
            continue
        else:
            sealed = True
        if number > last + 1:
            lost.append(place)
        last = number
        lines.append(line)
    if not lost:
        return Reading(lines, len(lines), "")
    return Reading(lines, lost[0], f"line {lost[0] + 1} is not the one that was written")


def digest(path: Path) -> str:
    """The sha256 of a ledger; "" where there is none."""
    try:
        return sha256(read_bytes(path)).hexdigest()
    except OSError:
        return ""


def _decoded(text: bytes) -> tuple[Line, int | None]:
    """(line, its number); a line of engram 0.2.0 has none.

    Raises:
        ValueError: the text is damaged.
    """
    said = decoded(text)
    number = None
    if said.keys() != _PLAIN:
        head, mark, _ = text.rpartition(_MARK)
        if said.keys() != {*_PLAIN, "n", "crc"} or not mark or said["crc"] != f"{crc32(head):08x}":
            raise ValueError("another checksum")
        number = _typed(said["n"], int)
    t, step, name = _typed(said["t"], int), _typed(said["step"], int), _typed(said["name"], str)
    return Line(t, step, name, float(_typed(said["value"], int, float))), number


def _typed(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise ValueError(f"{value!r} is of another type")
    return value
