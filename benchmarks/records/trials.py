"""What a trial's and a sweep's folder say, read without torch or mlflow; the sink, compare and report share it."""

from __future__ import annotations

import fcntl
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from engram.backbone.contract import Finished, Scalar
from engram.backbone.errors import must, nearest
from engram.backbone.options.spelling import by_flag, flat, spell
from engram.benchmarks.records.history import proposed
from engram.benchmarks.records.inside import is_name, open_inside
from engram.benchmarks.records.layout import trials_dir
from engram.benchmarks.records.lines import LEDGER, Line, digest, lost_in, read_ledger
from engram.benchmarks.records.meaning import by_todays_names, has_older_names, is_whole
from engram.benchmarks.records.memory import Memory, Said, memory_of
from engram.benchmarks.records.search import SEARCH
from engram.benchmarks.records.stored import Damaged, held, read_json

Status = Literal["done", "failed", "pruned", "running", "unfinished", "damaged", "planned"]
PRUNED = "pruned.json"
"""Says why a search gave the trial up; it goes on where a plan has it again."""
_WHY: Mapping[Status, str] = {
    "done": "",
    "running": "it is running now",
    "unfinished": "it was interrupted; run the sweep again to resume it",
    "planned": "it has not begun",
}


@dataclass(frozen=True)
class Record:
    """One trial's folder. Everything is read on first use, from files that are written whole or appended to.

    What is damaged reads as if it were not there, and `damage` says so.
    """

    folder: Path
    options: Mapping[str, Scalar] = field(default_factory=dict)
    """What the sweep set for this trial (axis -> value), beside its seed."""
    memory: Memory | None = field(default=None, compare=False, repr=False)
    """Where finished trials are looked up before their files are read."""
    plan: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What its sweep's plan says of it; as long as it has not begun its folder says nothing."""
    _damaged: dict[str, str] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def trial(self) -> str:
        return self.folder.name

    def _read(self, name: str) -> dict[str, Any]:
        _ = self._looked  # before anything is read: what changes meanwhile is not remembered
        try:
            return read_json(self.folder / name)
        except Damaged as error:
            self._damaged[name] = error.why
            return {}

    @cached_property
    def _looked(self) -> tuple[str, Said | None]:
        return ("", None) if self.memory is None else self.memory.of(self.folder)

    @cached_property
    def _known(self) -> Said | None:
        return self._looked[1]

    @cached_property
    def about(self) -> dict[str, Any]:
        return self._read("config.json") if self._known is None else self._known.about

    @cached_property
    def result(self) -> dict[str, Any]:
        return self._read("result.json")

    @cached_property
    def error(self) -> dict[str, Any]:
        return self._read("error.json")

    @cached_property
    def _stated(self) -> dict[str, Any]:
        return self._read("provenance.json")

    @cached_property
    def experiment(self) -> str:
        if self._known is not None and self._known.experiment is not None:
            return self._known.experiment
        return (self.about or self.result or self.plan).get("experiment", "?")

    @property
    def data(self) -> dict[str, str | None]:
        """sha256 over the files of its data sets, by name; None where they were not there when it was planned."""
        return self.about.get("data", {})

    @cached_property
    def config(self) -> dict[str, Scalar]:
        """Every option of the trial by flag name: options of options are ``backbone.width``."""
        planned = {"seed": self.plan["seed"]} if "seed" in self.plan else {}
        return by_flag({**(self.about or self.result).get("config", planned), **self.options})

    @cached_property
    def seed(self) -> int | None:
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def origin(self) -> Record:
        """The trial that says what this is about: the one it is from where its own options do not (`is_whole`)."""
        record, seen = self, set[Path]()
        while record.folder not in seen and not is_whole(record.experiment, record.config) and record.inputs:
            seen.add(record.folder)  # a stranger's trials may be made from each other
            record = record.inputs[0]
        return record

    @property
    def inputs(self) -> list[Record]:
        """The trials it was made from, as far as they lie beside it."""
        names = filter(is_name, map(str, self.about.get("inputs", {}).values()))
        found = [Record(self.folder.parent / trial) for trial in names]
        return [record for record in found if record.about]

    @cached_property
    def provenance(self) -> dict[str, Scalar]:
        return flat(self._stated)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Its final metrics, by the names of today."""
        held = self.result.get("metrics", {}) if self._known is None else self._known.metrics
        found = {name: number(value) for name, value in held.items()}
        return (
            by_todays_names(self.experiment, self.config, found) if has_older_names(self.experiment, found) else found
        )

    @property
    def finished(self) -> Finished | None:
        """What a plugin's command is told of it; None where it is not finished."""
        if self.status != "done":
            return None
        return Finished(
            trial=self.trial,
            experiment=self.experiment,
            options=self.config,
            metrics=self.metrics,
            tables=self.result["tables"],
        )

    @property
    def seconds(self) -> float | None:
        seconds = self.result.get("seconds") if self._known is None else self._known.seconds
        return None if seconds is None else float(seconds)

    @cached_property
    def damage(self) -> str:
        """Which of its files are not what was written, in one line; "" when all are."""
        read = {"config.json": self.about, "provenance.json": self._stated, "result.json": self.result}
        found = {name: self._damaged[name] for name in read if name in self._damaged}
        if lost := self._lost():
            found[LEDGER] = lost
        return ", ".join(f"{name} is damaged ({why})" for name, why in found.items())

    def _lost(self) -> str:
        """What the ledger has lost. That of a finished trial is known to its last byte, but for engram 0.2.0."""
        path, wanted = self.folder / LEDGER, self.result.get("ledger", "")
        if self.result and wanted in ("", digest(path)):
            return ""
        return lost_in(path) or ("its end is missing" if wanted else "")

    @cached_property
    def status(self) -> Status:
        if self._known is not None:
            return "done"
        finished = (self.folder / "result.json").exists()
        if not finished and not (self.folder / "config.json").exists():
            return "planned"
        if finished and not self.damage:
            if self.memory is not None:
                self._keep_little(self.memory)
            return "done"
        if alive(self.folder):
            return "running"
        if (self.folder / "error.json").exists():
            return "failed"
        if (self.folder / PRUNED).exists():
            return "pruned"
        if self.damage:
            return "damaged"
        return "unfinished" if (self.folder / "provenance.json").exists() else "planned"

    def _keep_little(self, memory: Memory) -> None:
        """Have what was read remembered, and hold no more of it than that: results of thousands are large."""
        said = Said.of(self.about, self.result["metrics"], self.seconds)
        memory.learn(self.folder, said, self._looked[0])
        held: dict[str, Any] = self.__dict__
        held["_known"] = said
        for name in ("about", "result", "_stated"):
            held.pop(name, None)

    @property
    def why(self) -> str:
        """Why it has no result, in one line or more; "" when it has one."""
        if self.status == "failed":
            said = self.error.get("message")
            return said or f"error.json is damaged ({self._damaged.get('error.json', 'it says nothing')})"
        if self.status == "pruned":
            return str(held(self.folder / PRUNED).get("why", "a search gave it up"))
        if self.status == "damaged":
            return f"{self.damage}; what made it does it again"
        return _WHY[self.status]

    def ledger(self) -> list[Line]:
        """All measurements so far, in the order they were made."""
        return read_ledger(self.folder / LEDGER).lines


@dataclass(frozen=True)
class Sweep:
    """A sweep's plan and its trials, in the order of the plan."""

    name: str
    axes: Mapping[str, list[Scalar]]
    seeds: list[int]
    records: list[Record]
    suite: str = ""
    memory: Memory | None = None
    """Where its records look; `Memory.save` keeps what they have read."""
    objectives: tuple[str, ...] = ()
    """The metrics that a search goes by; none of a grid."""
    given_up: Mapping[str, str] = field(default_factory=dict)
    """The trials of proposals that a search gave up, done or not, and where it did."""


def number(value: object) -> float:
    """A metric's value as a float; null, which JSON has in place of what is not a number, is nan."""
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


def read_sweep(out: Path, name: str, memory: Memory | None = None) -> Sweep:
    """The sweep called ``name`` in ``out``; ``memory``: one of ``out`` that was made already.

    Raises:
        UserError: there is no such sweep.
        Damaged: its plan is damaged.
    """
    path = out / "sweeps" / name / "plan.json"
    plan = read_json(path) if is_name(name) else {}
    if not plan:
        known = sweep_names(out)
        hint = nearest(name, known) if known else f"There is none in {out} yet: engram sweep SUITE.toml"
        raise must("sweep", "one that was run here", repr(name), hint)
    search = plan.get("search") or {}
    cells, varied = plan["trials"], plan.get("axes", {})
    if search and (record := path.with_name(SEARCH)).exists():  # which is ahead of the plan while a driver works on it
        cells, varied = proposed(
            record, plan.get("axes", {}), plan.get("seeds", []), in_turn=search["method"] == "halving"
        )
    strange = [planned["trial"] for planned in cells if not is_name(planned["trial"])]
    if strange:
        raise Damaged(path, f"a trial that is none of this folder, {strange[0]!r}")
    memory, folder = memory or memory_of(out), trials_dir(out)
    records = [
        Record(folder / planned["trial"], by_flag(planned.get("options", {})), memory, planned) for planned in cells
    ]
    axes = {spell(axis): values for axis, values in varied.items()}
    objectives = tuple(search.get("objectives", ()))
    given_up = {planned["trial"]: planned["given_up"] for planned in cells if planned.get("given_up")}
    return Sweep(name, axes, plan.get("seeds", []), records, plan.get("suite", ""), memory, objectives, given_up)


def sweep_names(out: Path) -> list[str]:
    return sorted(plan.parent.name for plan in (out / "sweeps").glob("*/plan.json"))


def trial_names(out: Path) -> list[str]:
    return sorted(config.parent.name for config in (out / "trials").glob("*/config.json"))


def named_trial(out: Path, text: str, what: str) -> Path:
    """The folder of a trial given by its id, the beginning of it, or its folder; ``what``: by which option.

    Raises:
        UserError: unknown or ambiguous.
    """
    folder = Path(text).expanduser()
    if (folder / "config.json").is_file():
        found = [folder.resolve()]
    else:
        found = sorted(path for path in trials_dir(out).glob("*") if text and path.name.startswith(text))
    if not found:
        raise must(what, f"a trial below {out} or a trial's folder", repr(text), f"See: engram status --out {out}")
    if len(found) > 1 and all(path.name != text for path in found):
        names = ", ".join(path.name for path in found[:5])
        raise must(what, "the beginning of one trial's id only", f"{text!r} ({names})", "Give more of it.")
    return next((path for path in found if path.name == text), found[0])


def find_trial(out: Path, text: str, what: str) -> tuple[str, Path]:
    """(id, folder) of a finished trial that `named_trial` finds.

    Raises:
        UserError: unknown, ambiguous or not finished.
    """
    trial = named_trial(out, text, what)
    record = Record(trial)
    if record.status != "done":
        got = f"{trial.name}, which is {record.status}{f' ({record.damage})' if record.damage else ''}"
        raise must(what, "a finished trial", got, "Run it to its end first.")
    return record.result["trial"], trial
