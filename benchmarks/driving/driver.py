"""Runs planned trials to their end: starts workers, watches them, feeds the tracking store."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from engram.backbone.options.spelling import by_flag
from engram.benchmarks.driving.feeder import PATIENCE_SECONDS, Feeder
from engram.benchmarks.driving.launch.local import LocalPool
from engram.benchmarks.driving.view import Names, ProgressView, open_view
from engram.benchmarks.planning.naming import labels, short_labels
from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.records.layout import LOG
from engram.benchmarks.records.pace import Pace, Progress, kind
from engram.benchmarks.records.stored import held, write_json
from engram.benchmarks.records.trials import Record
from engram.benchmarks.saying import say
from engram.benchmarks.worker.disk import FULL, full
from engram.benchmarks.worker.provenance import redacted
from engram.benchmarks.worker.stopping import STOPPED

POLL_SECONDS = 0.05
LOOK_SECONDS = 0.5  # between two looks at what trials have written
IMPATIENT_SECONDS = 5.0  # what the tracking store gets after ^C


@dataclass(frozen=True, kw_only=True)
class RunSetting:
    """How trials are run: what no trial's identity depends on."""

    out: Path
    data_root: Path
    argv: Sequence[str]
    download: bool = False
    device: str = "auto"
    tracking_uri: str | None = None
    workers: int = 1


@dataclass(frozen=True)
class Failure:
    """Why a trial has no result. ``kind``: user, data (missing), trial, crash, disk, killed, busy or needs."""

    trial: str
    kind: str
    message: str


@dataclass
class PlanOutcome:
    """Which trials of a plan were done, skipped or failed."""

    skipped: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    signal: int | None = None
    untold: str = ""
    """Why the tracking store is not complete; "" when it is."""
    refused: dict[str, str] = field(default_factory=dict)
    """What the tracking store does not take (trial or sweep -> why)."""

    @property
    def code(self) -> int:
        """The exit code of a sweep: it depends on the trials alone."""
        if self.signal is not None:
            return 128 + self.signal
        return 1 if self.failures else 0


def drive(trials: Sequence[Trial], setting: RunSetting, sweep: str | None, axes: Sequence[str] = ()) -> PlanOutcome:
    """Run what is not done yet. Trials come in an order in which each follows those it needs.

    ``axes`` are the options that the plan varies; their values are said of every trial.
    """
    for trial in trials:
        if damage := Record(trial.folder).damage:
            say(f"engram: trial {trial.id}: {damage}")
            write_config(trial)  # what it says is known: the trial may be done all the same
    done = [trial for trial in trials if Record(trial.folder).status == "done"]
    outcome = PlanOutcome(skipped=[trial.id for trial in done])
    todo = [trial for trial in trials if trial.id not in outcome.skipped]
    feeder = Feeder(setting.out, setting.tracking_uri, [trial.id for trial in trials], sweep)
    if todo:
        for trial in todo:
            write_trial(trial, setting)
        feeder.start()
        pool = LocalPool(min(setting.workers, len(todo)))
        names = Names(labels(trials, axes), short_labels(trials, axes))
        with open_view(names, len(done)) as view, _signals(outcome):
            _Drive(todo, pool, view, outcome, pace_of(done)).run()
    outcome.untold = feeder.finish(PATIENCE_SECONDS if outcome.signal is None else IMPATIENT_SECONDS)
    outcome.refused = dict(feeder.sink.refused)
    return outcome


def pace_of(done: Sequence[Trial]) -> Pace:
    """What is known of how long trials take from those that were done before."""
    pace = Pace()
    for trial in done:
        seconds = Record(trial.folder).seconds
        if seconds is not None:
            pace.add(kind_of(trial), seconds)
    return pace


def kind_of(trial: Trial) -> tuple[str, str]:
    return kind(trial.experiment, by_flag(trial.config))


def write_trial(trial: Trial, setting: RunSetting) -> None:
    """Write what the worker reads: what the trial is (once) and how to run it (each time)."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    write_config(trial)
    launch = {
        "device": setting.device,
        "data_root": str(setting.data_root),
        "download": setting.download,
        "inputs": dict(trial.paths),
        "argv": redacted(list(setting.argv)),
    }
    write_json(trial.folder / "launch.json", launch)


def write_config(trial: Trial) -> None:
    """Write what the trial is, where that does not stand there yet or is damaged."""
    before = Record(trial.folder)
    if not before.about or {*before.data} != {*trial.data}:  # the same data may lie in another place by now
        write_json(trial.folder / "config.json", trial.stored(), durable=True)


@contextmanager
def _signals(outcome: PlanOutcome) -> Iterator[None]:
    """Note SIGINT and SIGTERM in the outcome; the loop acts on them. A second one has the workers killed."""

    def note(number: int, frame: FrameType | None) -> None:
        outcome.signal = -number if outcome.signal is not None else number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        outcome.signal = None if outcome.signal is None else abs(outcome.signal)
        for number, handler in before.items():
            signal.signal(number, handler)


class _Drive:
    """The loop of one drive."""

    def __init__(
        self, todo: Sequence[Trial], pool: LocalPool, view: ProgressView, outcome: PlanOutcome, pace: Pace | None = None
    ) -> None:
        self.waiting = {trial.id: trial for trial in todo}
        self.running: dict[Path, Trial] = {}
        self.begun: dict[Path, float] = {}
        self.pool, self.view, self.outcome, self.pace = pool, view, outcome, pace or Pace()
        self.stopping = False

    def run(self) -> None:
        looked = 0.0
        while self.running or (self.waiting and self.outcome.signal is None):
            self._obey()
            if not self.stopping:
                self._start_ready()
            for folder, code in self.pool.finished().items():
                self._ended(self.running.pop(folder), code)
            if time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                self._look()
            self.view.draw()
            time.sleep(POLL_SECONDS)

    def _look(self) -> None:
        """Show how far every trial is, and how long is left of all."""
        now, running = time.monotonic(), []
        for folder, trial in self.running.items():
            said = Progress.read(folder)
            self.view.progress(trial, said)
            running.append((kind_of(trial), now - self.begun[folder], said.left() if said else None))
        self.view.left = self.pace.left(map(kind_of, self.waiting.values()), running, self.pool.workers)

    def _obey(self) -> None:
        if self.outcome.signal is None:
            return
        if not self.stopping:
            self.stopping = True
            self.view.line("stopping: trials save a checkpoint; once more to kill them")
            self.pool.stop()
        elif self.outcome.signal < 0:
            self.outcome.signal = abs(self.outcome.signal)
            self.pool.kill()

    def _start_ready(self) -> None:
        failed = {failure.trial for failure in self.outcome.failures}
        for trial in list(self.waiting.values()):
            lost = [need for need in trial.needs if need in failed]
            if lost:
                del self.waiting[trial.id]
                failed.add(trial.id)
                self.view.dropped()
                self._fail(trial, "needs", f"it needs trial {lost[0]}, which failed")
            elif self.pool.free and not any(need in self.waiting or self._runs(need) for need in trial.needs):
                del self.waiting[trial.id]
                self.running[trial.folder] = trial
                self.begun[trial.folder] = time.monotonic()
                self.view.started(trial)
                self.pool.start(trial.folder)

    def _runs(self, identity: str) -> bool:
        return any(trial.id == identity for trial in self.running.values())

    def _ended(self, trial: Trial, code: int) -> None:
        took = time.monotonic() - self.begun.pop(trial.folder)
        if Record(trial.folder).status == "done":
            self.pace.add(kind_of(trial), took)
            self._look()
            self.view.ended(trial, "done")
            return
        error = held(trial.folder / "error.json")
        if code == STOPPED and self.stopping:
            self.view.ended(trial, "stopped")
        elif code < 0 or code == STOPPED:
            self.view.ended(trial, "killed")
            self._fail(trial, "killed", f"{self._ended_by(trial, code)}; the same command resumes it")
        elif code == 4:
            self.view.ended(trial, "busy")
            self._fail(trial, "busy", "another engram is running it. Wait for it, or stop it.")
        else:
            self.view.ended(trial, "failed")
            if not error and code == FULL:
                error = {
                    "kind": "disk",
                    "message": full(trial.folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
                }
            told = f"its process ended with {code}: {self.pool.last_words(trial.folder)}"
            self._fail(trial, error.get("kind", "crash"), error.get("message", told))

    def _ended_by(self, trial: Trial, code: int) -> str:
        if trial.folder in self.pool.killed:
            return "it was asked to stop twice, and killed in the middle of its work"
        name = signal.Signals(-code).name if code < 0 else "SIGTERM"
        hint = "out of memory?" if code == -signal.SIGKILL else f"see {trial.folder / LOG}"
        return f"its process was ended by {name} ({hint})"

    def _fail(self, trial: Trial, kind: str, message: str) -> None:
        self.outcome.failures.append(Failure(trial.id, kind, message))
