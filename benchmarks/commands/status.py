"""``engram status``: what became of trials and sweeps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from engram.benchmarks.commands.flags import Showing
from engram.benchmarks.drawing.numbers import about, seconds
from engram.benchmarks.drawing.tables import render, terminal_width
from engram.benchmarks.given import Given
from engram.benchmarks.planning.naming import record_words
from engram.benchmarks.records.meaning import subject
from engram.benchmarks.records.memory import memory_of
from engram.benchmarks.records.pace import Progress, sweep_left
from engram.benchmarks.records.stored import Damaged
from engram.benchmarks.records.trials import Record, alive, read_sweep, sweep_names, trial_names
from engram.benchmarks.saying import say


def show(given: Given[Showing]) -> int:
    """Print one row per sweep and one per trial."""
    out = given.flags.out
    memory = memory_of(out)
    records = {trial: Record(out / "trials" / trial, memory=memory) for trial in trial_names(out)}
    sweeps, left = [], {}
    for name in sweep_names(out):
        try:
            planned = read_sweep(out, name, memory)
        except Damaged as error:
            say(f"engram: {error}")
            continue
        records |= {record.trial: record for record in planned.records if record.trial in records}
        counts = Counter(record.status for record in planned.records)
        driver = "running" if alive(out / "sweeps" / name) else "-"
        sweeps.append({"sweep": name, "driver": driver, "trials": counts.total(), **counts})
        left[name] = sweep_left(planned.records) if driver == "running" else None
    memory.save()
    if given.flags.json:
        trials = [_row(record) for record in records.values()]
        print(json.dumps({"sweeps": [{**row, "seconds_left": left[row["sweep"]]} for row in sweeps], "trials": trials}))
        return 0
    width = terminal_width()
    if sweeps:
        print(render("sweeps", [_sweep_line(row, left[row["sweep"]]) for row in sweeps], width))
    lines = [_line(record) for record in records.values()]
    print(render("trials", lines, width) if lines else f"no trial in {out} yet; start with: engram quickstart")
    return 0


def _sweep_line(row: Mapping[str, Any], left: float | None) -> dict[str, Any]:
    others = [f"{row[status]} {status}" for status in ("running", "failed", "unfinished", "damaged") if row.get(status)]
    said = {"sweep": row["sweep"], "driver": row["driver"], "done": f"{row.get('done', 0)} of {row['trials']}"}
    return {**said, "others": ", ".join(others) or "-", "left": "-" if left is None else about(left)}


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
        "note": _note(record, said),
    }


def _line(record: Record) -> dict[str, Any]:
    said = _progress(record)
    note, left = _note(record, said), said.left() if said and record.status == "running" else None
    time = "-" if record.seconds is None else seconds(record.seconds)
    line = {"trial": record.trial, "status": record.status, "time": time, "what": " ".join(record_words(record))}
    return line | ({"note": f"{note}, {about(left)} left" if left is not None else note} if note else {})


def _progress(record: Record) -> Progress | None:
    return None if record.status == "done" else Progress.read(record.folder)


def _note(record: Record, said: Progress | None) -> str:
    """Why it failed or what is damaged, or how far it is."""
    if record.status in ("failed", "damaged"):
        return record.why.partition("\n")[0]
    return f"{said.done:g}/{said.total:g} {said.text}" if said else ""
