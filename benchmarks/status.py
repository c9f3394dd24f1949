"""``engram status``: what became of trials and sweeps."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from benchmarks.catalogue import Command
from benchmarks.command import read
from benchmarks.flags import Showing
from benchmarks.records import Record, alive, read_json, read_sweep, sweep_names, trial_names
from benchmarks.tables import render


def show(name: str, command: Command, argv: list[str]) -> int:
    """Print one row per sweep and one per trial."""
    found = read(name, command, argv, Showing)
    if found is None:
        return 0
    out = found[1].out
    sweeps = []
    for sweep in sweep_names(out):
        counts = Counter(record.status for record in read_sweep(out, sweep).records)
        driver = "running" if alive(out / "sweeps" / sweep) else "-"
        sweeps.append({"sweep": sweep, "driver": driver, "trials": counts.total(), **counts})
    trials = [_row(Record(out / "trials" / trial)) for trial in trial_names(out)]
    if found[1].json:
        print(json.dumps({"sweeps": sweeps, "trials": trials}))
        return 0
    if sweeps:
        print(render("sweeps", sweeps))
    print(render("trials", trials) if trials else f"no trial in {out} yet; start with: engram quickstart")
    return 0


def _row(record: Record) -> dict[str, Any]:
    said = read_json(record.folder / "progress.json")
    progress = f"{said['done']:g}/{said['total']:g} {said['text']}" if said else ""
    return {
        "trial": record.trial,
        "status": record.status,
        "experiment": record.experiment,
        "dataset": record.config.get("dataset"),
        "backbone": record.config.get("backbone"),
        "seed": record.seed,
        "seconds": record.seconds,
        "note": str(record.error.get("message", progress)).partition("\n")[0],
    }
