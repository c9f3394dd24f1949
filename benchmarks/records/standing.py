"""How a sweep stands: what its trials' folders say of all of it, for people who wait."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engram.benchmarks.records.pace import Progress, sweep_left
from engram.benchmarks.records.trials import Record

_NUMBER = re.compile(r"\d[\d.]*(?:e[+-]?\d+)?|\b[0-9a-f]{16}\b")


@dataclass(frozen=True)
class Failed:
    """Trials that failed for one reason: what the first of them said, and who they are."""

    message: str
    trials: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """Of trials: ``counts`` by status, ``failed`` by reason, ``left`` in seconds, ``per_hour`` trials of late.

    ``left`` and ``per_hour`` are None where nobody knows.
    """

    counts: Mapping[str, int]
    failed: Sequence[Failed]
    left: float | None
    per_hour: float | None

    @cached_property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        return self.counts.get("done", 0)

    @property
    def running(self) -> int:
        return self.counts.get("running", 0)


def standing(records: Sequence[Record], *, driven: bool, now: float | None = None) -> Standing:
    """How trials stand; ``driven``: somebody runs them, so that it can be told how long is left."""
    now = time.time() if now is None else now
    counts = Counter(record.status for record in records)
    left = sweep_left(records, now) if driven else None
    return Standing(counts, failures(records), left, _per_hour(records, now) if driven else None)


def failures(records: Iterable[Record]) -> list[Failed]:
    """Trials that failed, by what they said: numbers and the names of trials are no difference. Most trials first."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.status in ("failed", "damaged"):
            found.setdefault(_NUMBER.sub("#", first_line(record)), []).append(record)
    groups = [Failed(first_line(alike[0]), tuple(each.trial for each in alike)) for alike in found.values()]
    return sorted(groups, key=lambda group: -len(group.trials))


def first_line(record: Record) -> str:
    """Why a trial failed, without where its log lies."""
    return record.why.partition("\n")[0].replace(f" (see {record.folder}/log.txt)", "")


def rate(said: Progress) -> float | None:
    """What a trial does in a second, in the units of its progress; None as long as nobody knows."""
    if said.done <= said.before or said.at <= said.begun:
        return None
    return (said.done - said.before) / (said.at - said.begun)


def _per_hour(records: Iterable[Record], now: float) -> float | None:
    """Finished trials in an hour, by when the results of the last hour were written."""
    ends = sorted(_written(record.folder) for record in records if record.status == "done")
    late = [end for end in ends if now - 3600.0 <= end <= now]
    if len(late) < 2 or now <= late[0]:
        return None
    return (len(late) - 1) * 3600.0 / (now - late[0])


def _written(folder: Path) -> float:
    try:
        return (folder / "result.json").stat().st_mtime
    except OSError:
        return 0.0
