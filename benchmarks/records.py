"""What a trial's and a sweep's folder say, read without torch or mlflow; the sink, compare and report share it."""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from backbone.contract import Scalar
from backbone.errors import must, nearest
from benchmarks.inside import is_name, open_inside
from benchmarks.spelling import by_flag, flat, spell

Status = Literal["done", "failed", "running", "unfinished", "planned"]


def read_json(path: Path) -> dict[str, Any]:
    """The object in ``path``; empty when the file is missing, being written by a dying process, or a link away."""
    try:
        with open_inside(path.parent, path.name) as file:
            value = json.loads(file.read().decode("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Line:
    """One line of a ledger: ``t`` in unix milliseconds."""

    t: int
    step: int
    name: str
    value: float


def parse_lines(raw: bytes) -> Iterator[Line]:
    """The measurements in ``raw``, whole lines of a ledger; a line a dying process garbled is passed over."""
    for text in raw.splitlines():
        try:
            line = json.loads(text)
            yield Line(int(line["t"]), int(line["step"]), str(line["name"]), float(line["value"]))
        except (ValueError, KeyError, TypeError):
            continue


@dataclass(frozen=True)
class Record:
    """One trial's folder. Everything is read on first use, from files that are written whole or appended to."""

    folder: Path
    options: Mapping[str, Scalar] = field(default_factory=dict)
    """What the sweep set for this trial (axis -> value), beside its seed."""

    @property
    def trial(self) -> str:
        return self.folder.name

    @cached_property
    def about(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json")

    @cached_property
    def experiment(self) -> str:
        return str(self.about.get("experiment", "?"))

    @property
    def data(self) -> dict[str, str | None]:
        """sha256 over the files of its data sets, by name; None where they were not there when it was planned."""
        kept = self.about.get("data")
        return kept if isinstance(kept, dict) else {}

    @cached_property
    def config(self) -> dict[str, Scalar]:
        """Every option of the trial by flag name: options of options are ``backbone.width``."""
        return by_flag({**self.about.get("config", {}), **self.options})

    @cached_property
    def seed(self) -> int | None:
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def origin(self) -> Record:
        """The trial whose data and network this is about: the one it is from, when it trains nothing itself."""
        untrained = "backbone" in self.config and self.config.get("epochs") is None
        return self.inputs[0].origin if self.config.get("from") and untrained and self.inputs else self

    @property
    def inputs(self) -> list[Record]:
        """The trials it was made from, as far as they lie beside it."""
        names = filter(is_name, map(str, self.about.get("inputs", {}).values()))
        found = [Record(self.folder.parent / trial) for trial in names]
        return [record for record in found if record.about]

    @cached_property
    def provenance(self) -> dict[str, Scalar]:
        return flat(read_json(self.folder / "provenance.json"))

    @cached_property
    def result(self) -> dict[str, Any]:
        return read_json(self.folder / "result.json")

    @cached_property
    def error(self) -> dict[str, Any]:
        return read_json(self.folder / "error.json")

    @cached_property
    def metrics(self) -> dict[str, float]:
        return {name: number(value) for name, value in self.result.get("metrics", {}).items()}

    @property
    def seconds(self) -> float | None:
        seconds = self.result.get("seconds")
        return float(seconds) if isinstance(seconds, int | float) else None

    @cached_property
    def status(self) -> Status:
        if (self.folder / "result.json").exists():
            return "done"
        if not (self.folder / "config.json").exists():
            return "planned"
        if alive(self.folder):
            return "running"
        if (self.folder / "error.json").exists():
            return "failed"
        return "unfinished" if (self.folder / "provenance.json").exists() else "planned"

    def ledger(self) -> list[Line]:
        """All measurements so far, in the order they were made."""
        try:
            with open_inside(self.folder, "metrics.jsonl") as file:
                return list(parse_lines(file.read()))
        except OSError:
            return []


@dataclass(frozen=True)
class Sweep:
    """A sweep's plan and its trials, in the order of the plan."""

    name: str
    axes: Mapping[str, list[Scalar]]
    seeds: list[int]
    records: list[Record]
    suite: str = ""


def number(value: object) -> float:
    """A metric's value; JSON has no word for what is not a number."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def alive(folder: Path) -> bool:
    """Whether a process works in the trial's folder: it holds the lock as long as it lives, however it dies."""
    try:
        with open_inside(folder, "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_sweep(out: Path, name: str) -> Sweep:
    """The sweep called ``name`` in ``out``.

    Raises:
        UserError: there is no such sweep.
    """
    plan = read_json(out / "sweeps" / name / "plan.json") if is_name(name) else {}
    if not plan:
        known = sweep_names(out)
        hint = nearest(name, known) if known else f"There is none in {out} yet: engram sweep SUITE.toml"
        raise must("sweep", "one that was run here", repr(name), hint)
    strange = [str(planned["trial"]) for planned in plan.get("trials", []) if not is_name(str(planned["trial"]))]
    if strange:
        remedy = "Run the sweep again: engram sweep SUITE.toml"
        raise must(f"plan of sweep {name}", "one of trials in this folder", repr(strange[0]), remedy)
    records = [
        Record(out / "trials" / str(planned["trial"]), options=by_flag(planned.get("options", {})))
        for planned in plan.get("trials", [])
    ]
    axes = {spell(axis): list(values) for axis, values in plan.get("axes", {}).items()}
    return Sweep(name, axes, list(plan.get("seeds", [])), records, suite=str(plan.get("suite", "")))


def sweep_names(out: Path) -> list[str]:
    return sorted(plan.parent.name for plan in (out / "sweeps").glob("*/plan.json"))


def trial_names(out: Path) -> list[str]:
    return sorted(config.parent.name for config in (out / "trials").glob("*/config.json"))
