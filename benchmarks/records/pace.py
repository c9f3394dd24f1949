"""How far trials are, and how long is left."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engram.benchmarks.records.stored import held, write_json
from engram.benchmarks.records.trials import Record

PROGRESS = "progress.json"


@dataclass(frozen=True)
class Progress:
    """What a trial said last: ``done`` of ``total`` and in words; times in unix seconds.

    ``begun`` is when this process first said something of that ``total``, and ``before`` how much was done by then: a
    resumed trial has done nothing of that itself.
    """

    done: float
    total: float
    text: str
    at: float
    begun: float
    before: float

    @classmethod
    def read(cls, folder: Path) -> Progress | None:
        """What the trial in ``folder`` said; None when it has said nothing, or is over."""
        said = held(folder / PROGRESS)
        return cls(**{name: said[name] for name in cls.__dataclass_fields__}) if said else None

    def next(self, done: float, total: float, text: str, now: float) -> Progress:
        """The progress after a new report; another ``total``, or less done than before, starts the clock anew."""
        if total != self.total or done < self.before:
            return Progress(done, total, text, now, now, done)
        return Progress(done, total, text, now, self.begun, self.before)

    def write(self, folder: Path) -> None:
        write_json(folder / PROGRESS, vars(self))

    def left(self, now: float | None = None) -> float | None:
        """Seconds to its end at the pace so far; None as long as there is none.

        >>> Progress(3, 12, "", at=60.0, begun=0.0, before=0).left(now=70.0)
        170.0
        """
        now = time.time() if now is None else now
        if self.done <= self.before or self.at <= self.begun:
            return None
        whole = (self.total - self.done) * (self.at - self.begun) / (self.done - self.before)
        return max(0.0, whole - (now - self.at))


def kind(experiment: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """What trials that differ in nothing but the seed have in common."""
    return sys.intern(experiment), sys.intern(json.dumps({**config, "seed": None}, sort_keys=True, default=str))


@dataclass
class Pace:
    """Expects a trial to take what others of its kind took, or else others of its experiment.

    ``took``: by kind, and by experiment alone, how many trials and their seconds in all.
    """

    took: dict[tuple[str, str] | str, tuple[int, float]] = field(default_factory=dict)

    def add(self, of: tuple[str, str], seconds: float) -> None:
        for key in (of, of[0]):
            count, total = self.took.get(key, (0, 0.0))
            self.took[key] = count + 1, total + seconds

    def expected(self, of: tuple[str, str]) -> float | None:
        count, total = self.took.get(of) or self.took.get(of[0]) or (0, 0.0)
        return total / count if count else None

    def left(
        self,
        waiting: Mapping[tuple[str, str], int],
        running: Iterable[tuple[tuple[str, str], float, float | None]],
        workers: int,
    ) -> float | None:
        """Seconds until the last trial is over; None when too little is known.

        Args:
            waiting: how many trials of each kind have not begun.
            running: kind, seconds so far, and seconds left where the trial's progress says so.
            workers: trials at once.
        """
        seen = Pace(dict(self.took))
        for of, so_far, left in (running := list(running)):
            if left is not None:
                seen.add(of, so_far + left)
        remaining: list[float] = []
        for of, so_far, left in running:
            expected = seen.expected(of)
            if left is None and expected is None:
                return None
            remaining.append(max(0.0, (expected or 0.0) - so_far) if left is None else left)
        others = [(count, seen.expected(of)) for of, count in waiting.items()]
        known = [(count, each) for count, each in others if each is not None]
        if len(known) < len(others) or not (remaining or known):
            return None
        work = sum(remaining) + sum(count * each for count, each in known)
        return max([work / max(workers, 1), *remaining, *(each for _, each in known)])


def sweep_left(records: Iterable[Record], now: float | None = None) -> float | None:
    """Seconds until a sweep is over, from its trials' folders, those they need included; None when nothing runs."""
    now = time.time() if now is None else now
    everything = {each.folder: each for record in records for each in (*record.inputs, record)}.values()
    pace, waiting, running = Pace(), Counter[tuple[str, str]](), []
    for record in everything:
        of = kind(record.experiment, record.config)
        said = Progress.read(record.folder) if record.status == "running" else None
        if record.status == "done" and record.seconds is not None:
            pace.add(of, record.seconds)
        elif record.status == "running":
            running.append((of, now - said.begun if said else 0.0, said.left(now) if said else None))
        elif record.status in ("planned", "unfinished", "damaged"):
            waiting[of] += 1
    return pace.left(waiting, running, len(running)) if running else None
