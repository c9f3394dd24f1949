"""Replays trial folders into MLflow.

Trials never wait for a tracking server: they append to their ledgers, and the driver tells MLflow when it can. Telling
twice changes nothing. Measurements go with the ledger's own timestamps, which MLflow's key (run, key, timestamp, step,
value) makes idempotent; runs are found again by tag; what was told is kept in each trial's ``sink.json``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backbone.errors import UserError, must, nearest
from benchmarks.layout import lock, write_json
from benchmarks.outcomes import Outcomes
from benchmarks.records import Record, Sweep, read_json, read_sweep, trial_names
from benchmarks.sink.read import stored_sweep
from benchmarks.sink.state import Mark, Memory, address_of, adoption, behind, sweep_digest
from benchmarks.sink.store import Teller, forget_deleted, probe, use_wal

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "engram"
LOCK_SECONDS = 5.0
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class SyncReport:
    """What came of telling the store. ``trials``: how many are now told in full; ``message``: why not, in one line."""

    ok: bool
    message: str
    trials: int


class Sink:
    """Tells one tracking store about the trials of one output folder."""

    def __init__(self, out: Path, tracking_uri: str | None) -> None:
        self.out = out.resolve()
        self.uri = tracking_uri or f"sqlite:///{self.out / 'mlflow.db'}"
        self.address = address_of(tracking_uri)
        self._failures = 0
        self._not_before = 0.0
        self._one_at_a_time = threading.Lock()

    def needs_sync(self, trials: list[str], sweep: str | None) -> bool:
        """Whether the store lacks anything about these trials; reads small files only and imports no mlflow."""
        records = [Record(self.out / "trials" / trial) for trial in trials]
        store = self._known_store()
        if any(behind(record, Memory(record.folder / "sink.json", self.address).load(store)) for record in records):
            return True
        if sweep is None:
            return False
        mark = Memory(self._sweep_folder(sweep) / "sink.json", self.address).load(store)
        return mark.told != sweep_digest(read_sweep(self.out, sweep))

    def sync(self, trials: list[str], sweep: str | None, *, now: bool = False) -> SyncReport:
        """Tell the store all it lacks about these trials and their sweep.

        Never raises for trouble with the store: the report says what was wrong, nothing is lost, and further calls
        return at once until a pause that grows with every failure is over (``now`` tries at once).
        """
        if not now and time.monotonic() < self._not_before:
            return SyncReport(False, "the tracking store failed a moment ago; waiting before the next try", 0)
        with self._one_at_a_time:
            try:
                with lock(self.out / ".sink.lock", patience=LOCK_SECONDS, what="the tracking store"):
                    told = self._sync(trials, sweep)
            except UserError:
                raise
            except Exception as error:  # whatever ails the store, the sweep goes on and the ledgers keep everything
                self._failures += 1
                self._not_before = time.monotonic() + min(_LONGEST_PAUSE, 2.0**self._failures)
                return SyncReport(False, f"{self.address}: {_one_line(error)}", 0)
        self._failures = 0
        self._not_before = 0.0
        return SyncReport(True, "", told)

    def _sync(self, trials: list[str], sweep: str | None) -> int:
        client = connect(self.uri)
        experiment, store = self._experiment(client)
        teller = Teller(client, experiment, self.out)
        parent, parent_memory, digest, plan = "", None, "", None
        records = {trial: Record(self.out / "trials" / trial) for trial in trials}
        if sweep is not None:
            plan = read_sweep(self.out, sweep)
            digest = sweep_digest(plan)
            parent_memory = Memory(self._sweep_folder(sweep) / "sink.json", self.address)
            mark = parent_memory.load(store)
            if mark.told != digest or not mark.run:
                parent_memory.save(Mark(store=store, run=teller.tell_sweep(plan, mark.run, digest)))
            parent = parent_memory.load(store).run
            records |= {record.trial: record for record in plan.records if record.trial in records}
        for record in records.values():
            memory = Memory(record.folder / "sink.json", self.address)
            mark = memory.load(store)
            if behind(record, mark) or (sweep is not None and adoption(sweep, parent) not in mark.adopted):
                teller.tell_trial(record, memory, mark, sweep or "", parent)
        if parent_memory is not None and plan is not None:
            if parent_memory.load(store).told != digest:
                self._release(teller, plan, store, parent)
            parent_memory.save(Mark(store=store, run=parent, told=digest))
        return len(trials)

    def _release(self, teller: Teller, sweep: Sweep, store: str, parent: str) -> None:
        """Let trials go that the sweep's plan names no more; each mark first, so that a kill leaves no false one."""
        here = set(trial_names(self.out))
        for run in teller.left(sweep, here):
            others: list[str] = []
            if (trial := run.data.tags["engram.trial"]) in here:  # else its folder was deleted
                memory = Memory(self.out / "trials" / trial / "sink.json", self.address)
                mark = memory.load(store)
                mark.adopted = [each for each in mark.adopted if not each.startswith(adoption(sweep.name, ""))]
                memory.save(mark)
                others = [each.partition(":")[2] for each in mark.adopted]
            teller.release(run, sweep.name, parent, others)

    def _experiment(self, client: MlflowClient) -> tuple[str, str]:
        """The experiment's id, and a name for this incarnation of the store: a deleted one comes back with another."""
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            with contextlib.suppress(Exception):  # another machine made it in between: the look-up below tells
                client.create_experiment(EXPERIMENT, artifact_location=self._artifacts())
            found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise RuntimeError(f"the experiment {EXPERIMENT!r} could not be made")
        if self.uri.startswith("sqlite:///"):
            use_wal(self.uri)
        store = f"{found.experiment_id}@{found.creation_time}"
        if self._known_store() != store:
            path = self.out / "sink.json"
            write_json(path, {**read_json(path), self.address: store})
        return found.experiment_id, store

    def _artifacts(self) -> str | None:
        """Absolute for a local database, whose default is relative to wherever the user stands; else the server's."""
        if not self.uri.startswith("sqlite:///"):
            return None
        return (Path(self.uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()

    def _known_store(self) -> str:
        database = Path(self.uri.removeprefix("sqlite:///"))
        if self.uri.startswith("sqlite:///") and not database.exists():
            return ""
        return str(read_json(self.out / "sink.json").get(self.address, ""))

    def _sweep_folder(self, sweep: str) -> Path:
        return self.out / "sweeps" / sweep


def read_store(tracking_uri: str, sweep: str) -> Outcomes:
    """A sweep's trials as an MLflow store knows them, from all machines that told it.

    Raises:
        UserError: the store cannot be read, or knows no such sweep.
    """
    shown = address_of(tracking_uri)
    path = Path(tracking_uri.removeprefix("sqlite:///"))
    if tracking_uri.startswith("sqlite:///") and not path.exists():
        raise must("--tracking-uri", "a store that exists", shown, "Fill one with: engram sync --tracking-uri ...")
    try:
        client = connect(tracking_uri, write=False)
        found = client.get_experiment_by_name(EXPERIMENT)
        axes, outcomes, known = stored_sweep(client, found.experiment_id if found else None, sweep)
    except Exception as error:  # whatever ails a store that somebody named
        raise must("--tracking-uri", "a store that answers", f"{shown} ({_one_line(error)})", "Check it.") from None
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
    if uri.startswith("sqlite:///"):
        probe(uri, LOCK_SECONDS, write=write)
    from mlflow import MlflowClient

    if uri.startswith("sqlite:///"):
        forget_deleted(uri)
    # mlflow prints tracebacks of the errors it raises, and alembic a line per migration; the report says what matters
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri)


def _one_line(error: Exception) -> str:
    root: BaseException = error
    while root.__context__ is not None:
        root = root.__context__
    # "Connection refused" and "database is locked" say more than the layers that pass them on
    told = root if isinstance(root, OSError | sqlite3.Error) else error
    text = " ".join(str(getattr(told, "strerror", None) or told).split()) or type(told).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
