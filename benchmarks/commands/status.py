"""``engram status [SWEEP]``: what became of trials and sweeps, once or as long as they run."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engram.benchmarks.commands.flags import Watching
from engram.benchmarks.drawing.numbers import about, pace, seconds
from engram.benchmarks.drawing.tables import render, terminal_width
from engram.benchmarks.given import Given
from engram.benchmarks.planning.naming import record_words
from engram.benchmarks.records.layout import DRIVER, sweep_dir
from engram.benchmarks.records.meaning import subject
from engram.benchmarks.records.memory import memory_of
from engram.benchmarks.records.pace import Progress
from engram.benchmarks.records.standing import Failed, Standing, first_line, rate, standing
from engram.benchmarks.records.stored import Damaged, held
from engram.benchmarks.records.trials import Record, alive, read_sweep, sweep_names, trial_names
from engram.benchmarks.saying import say

WATCH_SECONDS = 2.0
LEISURE = 4.0  # times what a look takes passes between two of them


def show(given: Given[Watching]) -> int:
    """Print one row per sweep and one per trial; of one sweep what is left of it and why trials failed."""
    flags, sweep = given.flags, next(iter(given.words), None)
    if flags.watch:
        return _watch(flags.out, sweep, flags.json)
    look = _Look(flags.out, sweep)
    print(json.dumps(look.to_json()) if flags.json else look.text(terminal_width()))
    return 0


class _Look:
    """What the folders say at one moment."""

    def __init__(self, out: Path, sweep: str | None) -> None:
        memory = memory_of(out)
        self.out, self.sweep = out, sweep
        names = [] if sweep is not None else trial_names(out)
        self.records = {trial: Record(out / "trials" / trial, memory=memory) for trial in names}
        self.sweeps: dict[str, Standing] = {}
        self.driven: dict[str, bool] = {}
        for name, records in self._planned(sweep):
            self.records |= {each.trial: each for each in records if sweep is not None or each.trial in self.records}
            self.driven[name] = alive(sweep_dir(out, name))
            self.sweeps[name] = standing(records, driven=self.driven[name])
        memory.save()

    def _planned(self, sweep: str | None) -> Iterator[tuple[str, Sequence[Record]]]:
        for name in sweep_names(self.out) if sweep is None else [sweep]:
            try:
                yield name, read_sweep(self.out, name, memory_of(self.out)).records
            except Damaged as error:
                if sweep is not None:
                    raise
                say(f"engram: {error}")

    @property
    def over(self) -> bool:
        """Whether nothing runs that is shown, nor anything that will start more of it."""
        running = any(found.running for found in self.sweeps.values())
        trials = any(record.status == "running" for record in self.records.values())
        return not (running or trials or any(self.driven.values()))

    def to_json(self) -> dict[str, Any]:
        sweeps = [
            {
                "sweep": name,
                "driver": "running" if self.driven[name] else "-",
                "where": self._where(name),
                "trials": found.total,
                **found.counts,
                "seconds_left": found.left,
                "trials_per_hour": found.per_hour,
                "failures": [vars(group) for group in found.failed],
            }
            for name, found in self.sweeps.items()
        ]
        return {"sweeps": sweeps, "trials": [_row(record) for record in self.records.values()]}

    def text(self, width: int | None) -> str:
        parts = []
        if self.sweeps:
            parts.append(render("sweeps", [self._sweep_line(name) for name in self.sweeps], width))
        for name, found in self.sweeps.items():
            if found.failed:
                parts.append(render(f"failed in {name}", [_failed_line(group) for group in found.failed], width))
        shown = [record for record in self.records.values() if self.sweep is None or record.status != "done"]
        lines = [_line(record) for record in sorted(shown, key=lambda record: record.status != "running")]
        if lines:
            parts.append(render("trials", lines, width))
        return "\n".join(parts) or f"no trial in {self.out} yet; start with: engram quickstart"

    def line(self) -> str:
        """All of it in one line, for those who watch without a terminal."""
        return "; ".join(f"{name}: {self._in_words(found)}" for name, found in self.sweeps.items()) or "nothing runs"

    def _in_words(self, found: Standing) -> str:
        words = [f"{found.done} of {found.total} done", *_others(found)]
        words += [f"{pace(found.per_hour)} trials/hour"] if found.per_hour is not None else []
        return ", ".join(words + ([f"about {about(found.left)} left"] if found.left is not None else []))

    def _where(self, name: str) -> str | None:
        """On which machine its driver runs, and with what it runs trials."""
        return held(sweep_dir(self.out, name) / DRIVER).get("where") if self.driven[name] else None

    def _sweep_line(self, name: str) -> dict[str, Any]:
        found = self.sweeps[name]
        driver = (self._where(name) or "running") if self.driven[name] else "-"
        said = {"sweep": name, "driver": driver, "done": f"{found.done} of {found.total}"}
        left = "-" if found.left is None else about(found.left)
        per_hour = {} if found.per_hour is None else {"trials/hour": pace(found.per_hour)}
        return {**said, "others": ", ".join(_others(found)) or "-", **per_hour, "left": left}


def _watch(out: Path, sweep: str | None, as_json: bool) -> int:
    """Look again and again until all is over: on a terminal in one place, elsewhere a line whenever it changes."""
    said = ""
    while True:
        begun = time.monotonic()
        look = _Look(out, sweep)
        if as_json:
            print(json.dumps(look.to_json()), flush=True)
        elif sys.stdout.isatty():
            sys.stdout.write(f"\x1b[H\x1b[2J{_cut(look.text(terminal_width()))}\n")
            sys.stdout.flush()
        elif (line := look.line()) != said:
            print(said := line, flush=True)
        if look.over:
            return 0
        time.sleep(max(WATCH_SECONDS, LEISURE * (time.monotonic() - begun)))


def _cut(text: str) -> str:
    """As much as a screen holds, which would else scroll away from its top."""
    lines, room = text.splitlines(), shutil.get_terminal_size().lines - 2  # the last one, and the cursor's
    return text if len(lines) <= room else "\n".join([*lines[:room], f"and {len(lines) - room} lines more"])


def _others(found: Standing) -> list[str]:
    statuses = ("running", "failed", "pruned", "unfinished", "damaged")
    return [f"{found.counts[status]} {status}" for status in statuses if found.counts.get(status)]


def _failed_line(group: Failed) -> Mapping[str, Any]:
    return {"trials": len(group.trials), "such as": group.trials[0], "why": group.message}


def _row(record: Record) -> dict[str, Any]:
    said = _progress(record)
    return {
        "trial": record.trial,
        "status": record.status,
        "experiment": record.experiment,
        **{name: record.config.get(name) for name in subject(record.experiment)},
        "options": dict(record.options),
        "seed": record.seed,
        "seconds": record.seconds,
        "seconds_left": said.left() if said else None,
        "per_second": rate(said) if said and record.status == "running" else None,
        "note": _note(record, said),
    }


def _line(record: Record) -> dict[str, Any]:
    said = _progress(record)
    note = _note(record, said)
    if said and record.status == "running":
        speed, left = rate(said), said.left()
        note += "" if speed is None else f", {pace(speed)}/s"
        note += "" if left is None else f", {about(left)} left"
    time = "-" if record.seconds is None else seconds(record.seconds)
    line = {"trial": record.trial, "status": record.status, "time": time, "what": " ".join(record_words(record))}
    return line | ({"note": note} if note else {})


def _progress(record: Record) -> Progress | None:
    return None if record.status == "done" else Progress.read(record.folder)


def _note(record: Record, said: Progress | None) -> str:
    """Why it failed or what is damaged, or how far it is."""
    if record.status in ("failed", "damaged"):
        return first_line(record)
    return f"{said.done:g}/{said.total:g} {said.text}" if said else ""
