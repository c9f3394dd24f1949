"""The loop of a driver: proposed trials in, started and ended workers out."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engram.benchmarks.driving.endings import failure
from engram.benchmarks.driving.launch.contract import Ended, Launcher
from engram.benchmarks.driving.orders import DRAIN, STOP, Orders
from engram.benchmarks.driving.outlook import Outlook
from engram.benchmarks.driving.proposing.contract import Proposer
from engram.benchmarks.driving.queue import Queue
from engram.benchmarks.driving.setting import Failure, PlanOutcome, RunSetting
from engram.benchmarks.driving.view import ProgressView
from engram.benchmarks.driving.writing import attempts_lost, write_config, write_trial
from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.records.memory import memory_of
from engram.benchmarks.records.pace import Progress
from engram.benchmarks.records.stored import write_json
from engram.benchmarks.records.trials import PRUNED, Record
from engram.benchmarks.worker.disk import RESERVE, has_room, release, tidy, trouble
from engram.benchmarks.worker.limits import grace, over_time
from engram.benchmarks.worker.stopping import STOPPED

POLL_SECONDS = 0.05
LOOK_SECONDS = 0.5  # between two looks at what trials have written, at least
LEISURE = 9.0  # times what a look takes passes between two of them: thousands of trials take seconds to look at
FEW = 100  # trials that are looked at whenever one of them ends
BACKOFF_SECONDS = 2.0  # before the second start of a trial whose process was lost; twice as long each time
LONGEST_BACKOFF_SECONDS = 300.0
OVERDUE_SECONDS = 30.0  # that a worker may take longer than its limits allow before its driver kills it
NO_ORDERS = Orders(None)


@dataclass
class Running:
    """A trial that was started: when, and why it is being given up ("": it is not).

    ``works``: since when its worker does, as far as its folder tells; ``overdue``: why it was killed in place of it.
    """

    trial: Trial
    begun: float
    given_up: str = ""
    works: float | None = None
    overdue: str = ""


class Drive:
    """Runs what a proposer proposes. ``known`` is called with the id of every trial that is proposed."""

    def __init__(
        self,
        proposer: Proposer,
        launcher: Launcher,
        view: ProgressView,
        outcome: PlanOutcome,
        setting: RunSetting,
        known: Callable[[str], None],
        orders: Orders = NO_ORDERS,
    ) -> None:
        self.proposer, self.launcher, self.view, self.outcome = proposer, launcher, view, outcome
        self.setting, self.known, self.orders = setting, known, orders
        self.queue, self.outlook, self.memory = Queue(), Outlook(), memory_of(setting.out)
        self.running: dict[Path, Running] = {}
        self.attempts: dict[str, int] = {}
        self.resting: list[tuple[float, Trial]] = []  # to be started again, and when
        self.stopping = self.forced = self.draining = False

    def run(self) -> None:
        look = 0.0
        while self.running or (self.outcome.signal is None and not self.draining and self._more()):
            self._obey()
            for folder, ended in self.launcher.finished().items():
                with self._halting():
                    self._ended(self.running.pop(folder), ended)
            if not self.stopping and not self.draining:
                with self._halting():
                    self._fill()
            if time.monotonic() >= look:
                begun = time.monotonic()
                with self._halting():
                    self._look()
                look = time.monotonic() + max(LOOK_SECONDS, LEISURE * (time.monotonic() - begun))
            self.view.draw()
            self.launcher.wait(POLL_SECONDS)
        if self.draining and self.outcome.signal is None and self._more():
            self.outcome.signal = signal.SIGTERM
        with self._halting():
            self.orders.clear()
        self.memory.save()
        self.outcome.total = self.proposer.total

    def _more(self) -> bool:
        more = False
        if not self.outcome.halted:
            with self._halting():
                more = bool(len(self.queue) or self.resting or not self.proposer.exhausted)
        return more

    @contextmanager
    def _halting(self) -> Iterator[None]:
        """Start nothing more, and ask the proposer nothing, once something that has to be written cannot be.

        What runs goes on: it may have what it needs.
        """
        try:
            yield
        except OSError as error:
            said, _ = trouble(error)
            if not said:
                raise
            self._halt(said)

    def _halt(self, why: str) -> None:
        if not self.outcome.halted:
            self.outcome.halted = why
            self.view.line(f"engram: {why}")
            self._drain()

    def _drain(self) -> None:
        if self.running and not self.draining and not self.stopping:
            self.view.line("draining: what runs goes on to its end, nothing more is started")
        self.draining = True

    def _take_orders(self) -> None:
        """Do what `engram stop` left for us to do."""
        order = self.orders.given()
        if order == STOP and self.outcome.signal is None:
            self.outcome.signal = signal.SIGTERM
        elif order == DRAIN and not self.draining:
            self._drain()

    def _obey(self) -> None:
        if self.outcome.signal is None:
            return
        if not self.stopping:
            self.stopping = True
            self.view.line("stopping: trials save a checkpoint; once more to kill them")
            self.launcher.stop()
        elif self.outcome.signal < 0:
            self.outcome.signal = abs(self.outcome.signal)
            self.forced = True
            self.launcher.kill()

    def _fill(self) -> None:
        """Start what may start, as many as the launcher takes."""
        now = time.monotonic()
        for due, trial in [each for each in self.resting if each[0] <= now]:
            self.resting.remove((due, trial))
            self.queue.again(trial)
        free = self.launcher.free()
        while free > 0:
            while self.queue.ready < free and not self.proposer.exhausted:
                proposed = self.proposer.ask(free - self.queue.ready)
                if not proposed:
                    break
                for trial in proposed:
                    self._accept(trial)
            trial = self.queue.next()
            if trial is None:
                return
            self._start(trial)
            free -= 1

    def _accept(self, trial: Trial) -> None:
        """Take a proposed trial: one that is done is told of, one that can never start is failed."""
        self.known(trial.id)
        record = Record(trial.folder, memory=self.memory)
        if record.status != "done" and (damage := record.damage):
            self.view.line(f"engram: trial {trial.id}: {damage}")
            write_config(trial)  # what it says is known: the trial may be done all the same
            record = Record(trial.folder)
        if record.status == "done":
            if (trial.folder / RESERVE).exists():
                tidy(trial.folder)  # its worker was killed behind its result
            self.outcome.skipped.append(trial.id)
            self.outlook.done_before(trial, record.seconds)
            self.view.skipped()
            self._over(trial, record, done=True)
            return
        self.view.knows(trial, self.proposer.axes, self.proposer.total)
        self.outlook.waits(trial)
        if lost := self.queue.add(trial):
            self._drop(trial, lost)

    def _start(self, trial: Trial) -> None:
        attempt = max(self.attempts.get(trial.id, 0), attempts_lost(trial.folder)) + 1
        write_trial(trial, self.setting, attempt)
        self.launcher.start(trial.folder, self.setting.resources)
        self.attempts[trial.id] = attempt
        self.outlook.waits_no_more(trial)
        self.running[trial.folder] = Running(trial, time.monotonic())
        self.view.started(trial)

    def _look(self) -> None:
        """Show how far every trial is and how long is left of all, and give up what has no hope."""
        now, running = time.monotonic(), []
        self._take_orders()
        for folder, held in self.running.items():
            self._end_overdue(folder, held)
            said = Progress.read(folder)
            self.view.progress(held.trial, said)
            running.append((held.trial, now - held.begun, said.left() if said else None))
            if self.stopping or self.outcome.halted or held.given_up:
                continue
            held.given_up = self.proposer.look(held.trial, Record(folder))
            if held.given_up:
                self.launcher.stop(frozenset((folder,)))
        if not self.outcome.halted and self.proposer.exhausted:  # else nobody knows what is to come
            self.view.left = self.outlook.left(running, self.launcher.workers)

    def _end_overdue(self, folder: Path, held: Running) -> None:
        """Kill a trial that is long over its time: its worker would have ended it, was it not stuck."""
        limit = self.setting.resources.seconds
        if limit is None or held.overdue:
            return
        if held.works is None:
            held.works = time.monotonic() if (folder / RESERVE).exists() else None
        elif (took := time.monotonic() - held.works) > limit + grace(limit) + OVERDUE_SECONDS:
            held.overdue = over_time(limit, took, saved=False)
            self.launcher.kill(frozenset((folder,)))

    def _ended(self, held: Running, ended: Ended) -> None:
        trial, record = held.trial, Record(held.trial.folder)
        if record.status == "done":
            self.outlook.took(trial, time.monotonic() - held.begun)
            if len(self.running) < FEW:
                self._look()
            self.view.ended(trial, "done")
            self._over(trial, record, done=True)
        elif held.given_up and ended.code in (STOPPED, 0):
            write_json(trial.folder / PRUNED, {"why": held.given_up})
            self.outcome.pruned[trial.id] = held.given_up
            self.view.ended(trial, "pruned")
            self._over(trial, Record(trial.folder), done=False)
        elif ended.code == STOPPED and self.stopping:
            self.view.ended(trial, "stopped")
        elif held.overdue and ended.code != STOPPED and not record.error:
            write_json(trial.folder / "error.json", {"kind": "time", "message": held.overdue, "traceback": ""})
            self._failed(trial, Failure(trial.id, "time", held.overdue))
        else:
            self._failed(trial, failure(trial, ended, forced=self.forced))

    def _failed(self, trial: Trial, why: Failure) -> None:
        attempts = self.attempts[trial.id]
        if why.kind in ("killed", "lost") and not self.stopping and attempts <= self.setting.retries:
            pause = min(BACKOFF_SECONDS * 2 ** (attempts - 1), LONGEST_BACKOFF_SECONDS)
            self.resting.append((time.monotonic() + pause, trial))
            self.outlook.waits(trial)
            self.view.again(trial, f"{why.kind}; attempt {attempts + 1} of {self.setting.retries + 1} in {pause:g} s")
            return
        if why.kind in ("killed", "lost"):
            release(trial.folder)  # whoever runs it again begins to count anew
        self.view.ended(trial, why.kind if why.kind in ("killed", "lost", "busy") else "failed")
        self.outcome.failures.append(why)
        if why.kind == "disk" and not has_room(self.setting.out):
            self._halt(why.message)  # or every trial fails, one after the other
        self._over(trial, Record(trial.folder), done=False)

    def _over(self, trial: Trial, record: Record, *, done: bool) -> None:
        self.outcome.done += done
        self._tell(trial, record)
        for other, need in self.queue.over(trial.id, done):
            self._drop(other, need)

    def _drop(self, trial: Trial, need: str) -> None:
        """Fail a trial that needs one which has no result."""
        self.view.dropped()
        self.outlook.waits_no_more(trial)
        why = "was given up" if need in self.outcome.pruned else "failed"
        self.outcome.failures.append(Failure(trial.id, "needs", f"it needs trial {need}, which {why}"))
        self._tell(trial, Record(trial.folder))

    def _tell(self, trial: Trial, record: Record) -> None:
        if not self.outcome.halted:  # else it is told when the same command goes on
            self.proposer.tell(trial, record)
