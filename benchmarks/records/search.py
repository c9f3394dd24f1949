"""The record of a search (``sweeps/NAME/search.jsonl``): all that was asked, decided and told, in that order.

Lines as those of a ledger (`engram.benchmarks.records.lines`), one for each event, on the disk before anything follows
from it. What a search proposes next is a function of them alone, so that a search whose driver was killed goes on as
if it had not been. A torn last line is cut off. So is what stands behind a line that was damaged since: the same
proposals follow from what stands before it, and their trials are done.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import Field, TypeAdapter, ValidationError

from engram.benchmarks.records.lines import sealed, unsealed
from engram.benchmarks.records.shapes import Number, Tree
from engram.benchmarks.records.stored import read_bytes

SEARCH = "search.jsonl"
Count = Annotated[int, Ge(0)]


@dataclass(frozen=True, kw_only=True)
class _Spent:
    """``seconds`` and ``joules`` are what the search had cost when it was written, by all its drivers."""

    seconds: Annotated[float, Ge(0)] = 0.0
    joules: Annotated[float, Ge(0)] = 0.0


@dataclass(frozen=True, kw_only=True)
class Begun(_Spent):
    """The first line: what is searched, which no later one may change."""

    about: dict[str, Tree]
    event: Literal["search"] = "search"


@dataclass(frozen=True, kw_only=True)
class Asked(_Spent):
    """A proposal: its options, and its trials, one for each seed; none where it is ``refused``, and why."""

    proposal: Count
    options: dict[str, Tree]
    trials: list[str]
    refused: str = ""
    event: Literal["ask"] = "ask"


@dataclass(frozen=True, kw_only=True)
class Ranked(_Spent):
    """A proposal came to a rung: with which value, after which ``share`` of its work, and whether it goes on."""

    proposal: Count
    rung: Count
    value: Number
    share: Annotated[float, Ge(0)]
    kept: bool
    event: Literal["rung"] = "rung"


@dataclass(frozen=True, kw_only=True)
class Told(_Spent):
    """A trial is over; ``values`` are those of the objectives, of one that is done."""

    trial: str
    status: Literal["done", "failed", "pruned"]
    values: list[Number] = field(default_factory=list)
    event: Literal["tell"] = "tell"


@dataclass(frozen=True, kw_only=True)
class Clocked(_Spent):
    """Nothing happened but that time went by."""

    event: Literal["spent"] = "spent"


Event = Begun | Asked | Ranked | Told | Clocked
_EVENT: TypeAdapter[Any] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


class SearchRecord:
    """Appends events. ``events`` are those that stood there, and ``lost`` what is said where some were damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events, whole, self.lost = read_events(path)
        self._count = len(self.events)
        new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._file, whole)
        os.lseek(self._file, whole, os.SEEK_SET)
        if new:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def append(self, event: Event) -> None:
        """Write an event; it outlives a power cut when this returns.

        Raises:
            OSError: it cannot be written, and nothing of it stands there.
        """
        data = sealed(vars(event), self._count)
        begun = os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            error.filename = str(self.path)  # which a full disk does not say
            os.ftruncate(self._file, begun)
            os.lseek(self._file, begun, os.SEEK_SET)
            raise
        self._count += 1

    def close(self) -> None:
        os.close(self._file)


def read_events(path: Path) -> tuple[Sequence[Event], int, str]:
    """(events, how many bytes they are, what is wrong with the line behind them or ""); a torn last line is no wrong.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        raw = read_bytes(path)
    except FileNotFoundError:
        return [], 0, ""
    events: list[Event] = []
    whole = asked = 0
    *texts, _ = raw.split(b"\n")
    for text in texts:
        try:
            said, number = unsealed(text)
            event: Event = _EVENT.validate_python(said)
            if number != len(events) or not _follows(event, asked):
                raise ValueError("it is another line")
            events.append(event)
            asked += isinstance(event, Asked)
        except (ValueError, ValidationError):
            return events, whole, f"line {len(events) + 1} of {path} is not the one that was written"
        whole += len(text) + 1
    return events, whole, ""


def _follows(event: Event, asked: int) -> bool:
    """Whether an event can stand behind so many proposals."""
    if isinstance(event, Asked):
        return event.proposal == asked
    return not isinstance(event, Ranked) or event.proposal < asked


def plain(value: float | None) -> float | None:
    """A value as a line holds it: None for what is not a number."""
    return value if value is not None and value == value and abs(value) <= 1e150 else None
