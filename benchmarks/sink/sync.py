"""Replays trial folders into MLflow.

Trials never wait for a tracking server: they append to their ledgers, and the driver tells MLflow when it can. Telling
twice changes nothing. Measurements go with the ledger's own timestamps, which MLflow's key (run, key, timestamp, step,
value) makes idempotent; runs are found again by tag; what was told is kept in each trial's ``sink.json``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from engram.backbone.errors import UserError, must, nearest
from engram.benchmarks.records.layout import lock
from engram.benchmarks.records.memory import memory_of
from engram.benchmarks.records.outcomes import Outcomes
from engram.benchmarks.records.stored import held, write_json
from engram.benchmarks.records.trials import Record, Sweep, read_sweep, trial_names
from engram.benchmarks.sink.address import address_of
from engram.benchmarks.sink.database import (
    artifacts_of,
    database_of,
    hold_engine,
    move_artifacts,
    probe,
    uri_of,
    use_wal,
)
from engram.benchmarks.sink.experiments import EXPERIMENT, all_of, experiment_of, found_or_made, see_active
from engram.benchmarks.sink.read import active_runs, stored_sweep
from engram.benchmarks.sink.state import (
    Mark,
    Memory,
    adoption,
    behind,
    machines_of,
    pending,
    rewound,
    sweep_digest,
    sweep_state,
    told_state,
    told_sweep,
    young,
)
from engram.benchmarks.sink.store import Teller
from engram.benchmarks.sink.together import together
from engram.benchmarks.sink.trouble import Refused, concerns_one, lasting, one_line, refusal, unwritable

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_SECONDS = 5.0
_LONGEST_PAUSE = 60.0
_TOGETHER = 100  # trials that the store is asked about at once


@dataclass(frozen=True)
class SyncReport:
    """What came of telling the store. ``trials``: how many are now told in full.

    ``ok`` is whether the store could be asked; else ``message`` says why not, in one line, and ``lasting`` whether
    another try would end the same.
    """

    ok: bool
    message: str
    trials: int
    lasting: bool = False


@dataclass(frozen=True)
class _Following:
    """A sweep, "" where there is none, that was told as a whole: to the run ``parent`` of the ``store``."""

    teller: Teller
    sweep: str
    parent: str
    store: str


class Sink:
    """Tells one tracking store about the trials of one output folder.

    ``refused`` is what the store did not take (trial or sweep -> why): set aside, so that the others go on. It is tried
    again by the next command.
    """

    def __init__(self, out: Path, tracking_uri: str | None) -> None:
        self.out = out.resolve()
        self.uri = uri_of(self.out / "mlflow.db") if tracking_uri is None else tracking_uri
        self.database = database_of(self.uri)
        self.address = address_of(tracking_uri)
        self.refused: dict[str, str] = {}
        self._failures = 0
        self._not_before = 0.0
        self._one_at_a_time = threading.Lock()
        self._following: _Following | None = None
        self._over: dict[str, tuple[str, str]] = {}  # finished trials that were told by this sink -> store, parent

    def needs_sync(self, trials: list[str], sweep: str | None) -> bool:
        """Whether the store lacks anything about these trials; reads small files only and imports no mlflow."""
        store = self._known_store()
        if next(self._behind(trials, store), None) is not None:
            return True
        if sweep is None or f"sweep {sweep}" in self.refused:
            return False
        folder, plan = self._sweep_folder(sweep), read_sweep(self.out, sweep)
        mark = Memory(folder / "sink.json", self.address).load(store)
        if mark.told != told_sweep(plan, sweep_state(plan, over=True)):
            return True
        told = {each: Memory(each / "sink.json", self.address).load(store) for each in (folder, *machines_of(folder))}
        return any(
            of.run != mark.run or rewound(each, of) or next(pending(each, of.offset), None) is not None
            for each, of in told.items()
        )

    def sync(self, trials: list[str], sweep: str | None, *, now: bool = False) -> SyncReport:
        """Tell the store all it lacks about these trials and their sweep.

        Never raises for trouble with the store: the report says what was wrong, nothing is lost, and further calls
        return at once until a pause that grows with every failure is over. ``now`` tries at once, and takes a sweep of
        which nothing runs for one that was broken off.
        """
        if not now and time.monotonic() < self._not_before:
            return SyncReport(False, "the tracking store failed a moment ago; waiting before the next try", 0)
        return self._attempt(lambda: self._sync(trials, sweep, over=now))

    def follow(self, trials: list[str], sweep: str | None) -> SyncReport:
        """As `sync` of trials that run, and cheap enough to be done all the time: what only the end of their sweep
        shows is left to `sync`, and so are trials that have begun just now. Imports no mlflow before there is news.
        """
        store, following = self._known_store(), self._following
        news = [record for record in self._behind(trials, store) if not young(record)]
        if not news:
            return SyncReport(True, "", 0)
        if following is None or (following.store, following.sweep) != (store, sweep or ""):
            return self.sync(trials, sweep)
        return self._attempt(lambda: self._follow(news, following))

    def _behind(self, trials: Iterable[str], store: str) -> Iterator[Record]:
        """Those of which the store lacks anything."""
        known = memory_of(self.out)
        for trial in trials:
            if f"trial {trial}" in self.refused or (store and self._over.get(trial, ("", ""))[0] == store):
                continue
            record = Record(self.out / "trials" / trial, memory=known)
            if behind(record, Memory(record.folder / "sink.json", self.address).load(store)):
                yield record

    def _attempt(self, work: Callable[[], int]) -> SyncReport:
        with self._one_at_a_time:
            try:
                with lock(self.out / ".sink.lock", patience=LOCK_SECONDS, what="the tracking store"):
                    told = work()
            except UserError:
                raise
            except Exception as error:  # whatever ails the store, the sweep goes on and the ledgers keep everything
                self._following = None
                self._failures += 1
                self._not_before = time.monotonic() + min(_LONGEST_PAUSE, 2.0**self._failures)
                said = refusal(error) or unwritable(error) or f"{self.address}: {one_line(error)}"
                return SyncReport(False, said, 0, lasting(error))
        self._failures = 0
        self._not_before = 0.0
        return SyncReport(True, "", told)

    def run_of(self, trial: str) -> str:
        """The id of the run that a trial was told as; "" where it was not."""
        return Memory(self.out / "trials" / trial / "sink.json", self.address).load(self._known_store()).run

    def count(self, trials: list[str]) -> SyncReport:
        """How many of these trials the store holds, asked of the store itself.

        ``message`` says how many were deleted there, which is their owner's wish.
        """
        try:
            with lock(self.out / ".sink.lock", patience=LOCK_SECONDS, what="the tracking store"):
                client = connect(self.uri)
                _, store = self._experiment(client)
                experiments = list(all_of(client))
            marks = [Memory(self.out / "trials" / trial / "sink.json", self.address).load(store) for trial in trials]
            told = [mark.run for mark in marks if mark.run and not mark.aside]
            held = len(active_runs(client, experiments, told))
        except Exception as error:
            said = refusal(error) or unwritable(error) or one_line(error)
            return SyncReport(False, said, 0, lasting(error))
        gone = len(told) - held
        return SyncReport(True, f"deleted in MLflow, and left so: {gone}" if gone else "", held)

    def _sync(self, trials: list[str], sweep: str | None, *, over: bool) -> int:
        client = connect(self.uri)
        experiment, store = self._experiment(client)
        teller = Teller(client, experiment, all_of(client), self.out, self._home())
        records = {trial: Record(self.out / "trials" / trial) for trial in trials}
        parent, state, plan = "", "", None
        if sweep is not None:
            plan = read_sweep(self.out, sweep)
            state = sweep_state(plan, over=over)
            if f"sweep {sweep}" not in self.refused:
                with self._setting_aside(f"sweep {sweep}", teller):
                    parent = self._tell_sweep(teller, plan, state, store)
            records |= {record.trial: record for record in plan.records if record.trial in records}
        self._tell_trials(teller, records.values(), sweep or "", parent, store)
        if plan is not None and parent:
            memory = Memory(self._sweep_folder(plan.name) / "sink.json", self.address)
            mark, told = memory.load(store), told_sweep(plan, state)
            if mark.told != told:
                self._release(teller, plan, store, parent)
                teller.say_elsewhere(plan, parent)
                mark.told = told
            memory.save(mark)
            self._tell_machines(teller, plan.name, parent, store)
        self._following = _Following(teller, sweep or "", parent, store) if parent or plan is None else None
        return sum(
            trial in self._over or (bool(told_state(record)) and f"trial {trial}" not in self.refused)
            for trial, record in records.items()
        )

    def _follow(self, records: Sequence[Record], following: _Following) -> int:
        if self.database:
            probe(self.database, LOCK_SECONDS, write=True)
        teller, sweep, parent, store = following.teller, following.sweep, following.parent, following.store
        self._tell_trials(teller, records, sweep, parent, store)
        if parent:
            self._tell_machines(teller, sweep, parent, store)
        return len(records)

    def _tell_machines(self, teller: Teller, sweep: str, parent: str, store: str) -> None:
        home = self._sweep_folder(sweep)
        for folder in (home, *machines_of(home)):
            memory = Memory(folder / "sink.json", self.address)
            mark = memory.load(store)
            teller.tell_machine(folder, memory, mark if mark.run == parent else Mark(store=store, run=parent))

    def _tell_trials(self, teller: Teller, records: Iterable[Record], sweep: str, parent: str, store: str) -> None:
        """Tell of the trials that the store lacks anything about, or does not know to be of the sweep."""
        lacking = []
        for record in records:
            if f"trial {record.trial}" in self.refused or self._over.get(record.trial) == (store, parent):
                continue
            memory = Memory(record.folder / "sink.json", self.address)
            mark = memory.load(store)
            if behind(record, mark) or (sweep and parent and adoption(sweep, parent) not in mark.adopted):
                lacking.append((record, memory, mark))
            elif record.status == "done":
                self._over[record.trial] = store, parent
        for first in range(0, len(lacking), _TOGETHER):
            group = lacking[first : first + _TOGETHER]
            teller.look([(record, mark) for record, _, mark in group])

            def tell(each: tuple[Record, Memory, Mark]) -> None:
                record, memory, mark = each
                name = f"trial {record.trial}"
                with self._setting_aside(name, teller):
                    teller.tell_trial(record, memory, mark, sweep, parent)
                if name in self.refused:
                    with contextlib.suppress(Exception):  # what ails the trial may ail this too
                        teller.put_aside(record, memory, mark, sweep, parent, self.refused[name])
                elif record.status == "done":
                    self._over[record.trial] = store, parent

            together(tell, group, teller.runs.at_once)

    def _tell_sweep(self, teller: Teller, plan: Sweep, state: str, store: str) -> str:
        """The id of the sweep's run; it counts as told only when its trials are."""
        memory = Memory(self._sweep_folder(plan.name) / "sink.json", self.address)
        mark = memory.load(store)
        mine = teller.runs_of(plan, mark.run)
        if mine:
            teller.experiment = mine[0].info.experiment_id
        else:
            name, place = experiment_of(plan.name), artifacts_of(self.database) if self.database else None
            teller.experiment = found_or_made(teller.client, name, place, self.uri).experiment_id
            teller.experiments[teller.experiment] = name
        if mark.told == told_sweep(plan, state) and mark.run:
            return mark.run
        parent = teller.tell_sweep(plan, mine, sweep_digest(plan), state)
        kept = mark if mark.run == parent else Mark(store=store, run=parent)
        kept.told = ""
        memory.save(kept)
        return parent

    @contextlib.contextmanager
    def _setting_aside(self, name: str, teller: Teller) -> Iterator[None]:
        """Keep one thing that the store does not take from blocking all after it."""
        try:
            yield
        except Exception as error:
            if not concerns_one(error, lambda: teller.client.get_experiment(teller.experiment)):
                raise
            said = f"{one_line(error).rstrip('.')}. Mend that, or delete its folder."
            self.refused[name] = refusal(error) or said

    def _release(self, teller: Teller, sweep: Sweep, store: str, parent: str) -> None:
        """Let trials go that the sweep's plan names no more; each mark first, so that a kill leaves no false one."""
        here = set(trial_names(self.out))
        for run in teller.left(sweep, here):
            others: list[str] = []
            if (trial := run.data.tags["engram.trial"]) in here:  # else its folder was deleted
                self._over.pop(trial, None)
                memory = Memory(self.out / "trials" / trial / "sink.json", self.address)
                mark = memory.load(store)
                mark.adopted = [each for each in mark.adopted if not each.startswith(adoption(sweep.name, ""))]
                memory.save(mark)
                others = [each.partition(":")[2] for each in mark.adopted]
            teller.release(run, sweep.name, parent, others)

    def _experiment(self, client: MlflowClient) -> tuple[str, str]:
        """The experiment's id, and a name for this incarnation of the store: a deleted one comes back with another."""
        place = artifacts_of(self.database) if self.database else None
        found = found_or_made(client, EXPERIMENT, place, self.uri)
        if self.database:
            use_wal(self.database)
            old, new = found.artifact_location, artifacts_of(self.database)
            if old != new and old.startswith("file:") and old.endswith("/mlartifacts"):
                move_artifacts(self.database, old, new)
        store = f"{found.experiment_id}@{found.creation_time}"
        if self._known_store() != store:
            path = self.out / "sink.json"
            write_json(path, {**held(path), "home": self._home(), self.address: store})
        return found.experiment_id, store

    def _home(self) -> str:
        """Names the output folder, wherever it is copied to once a store knows of it."""
        kept = held(self.out / "sink.json").get("home", "")
        fresh = sha256(f"{socket.gethostname()}:{self.out}".encode()).hexdigest()[:16]
        return kept if isinstance(kept, str) and re.fullmatch("[0-9a-f]{16}", kept) else fresh

    def _known_store(self) -> str:
        if self.database and not self.database.exists():
            return ""
        return str(held(self.out / "sink.json").get(self.address, ""))

    def _sweep_folder(self, sweep: str) -> Path:
        return self.out / "sweeps" / sweep


def read_store(tracking_uri: str, sweep: str) -> Outcomes:
    """A sweep's trials as an MLflow store knows them, from all machines that told it.

    Raises:
        UserError: the store cannot be read, or knows no such sweep.
    """
    shown, path = address_of(tracking_uri), database_of(tracking_uri)
    if path and not path.exists():
        raise must("--tracking-uri", "a store that exists", shown, "Fill one with: engram sync --tracking-uri ...")
    try:
        client = connect(tracking_uri, write=False)
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            see_active(found, tracking_uri)
        axes, outcomes, known = stored_sweep(client, list(all_of(client)), sweep)
    except Refused as error:
        raise UserError(str(error)) from None
    except Exception as error:  # whatever ails a store that somebody named
        raise must("--tracking-uri", "a store that answers", f"{shown} ({one_line(error)})", "Check it.") from None
    if not outcomes:
        hint = nearest(sweep, known) if known else "It holds none yet: engram sync --tracking-uri ..."
        raise must("sweep", "one that the store knows", repr(sweep), hint)
    return Outcomes(sweep, axes, outcomes)


def connect(uri: str, *, write: bool = True) -> MlflowClient:
    """A client that fails soon instead of retrying for minutes, and keeps quiet.

    Raises:
        Exception: whatever mlflow, SQLAlchemy or requests think of a store that is missing, locked or broken.
    """
    # before the import: mlflow reads some of these once
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # where --json speaks
    os.environ.setdefault("MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH", "20000")  # 2048, and escapes count
    database = database_of(uri)
    if database:
        probe(database, LOCK_SECONDS, write=write)
    from mlflow import MlflowClient

    # mlflow prints tracebacks of the errors it raises, and alembic a line per migration; the report says what matters
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if database:
        hold_engine(uri, database)
    return MlflowClient(tracking_uri=uri)
