"""The sink when things go wrong: killed, locked, deleted, shared stores; every number still stands once."""

from __future__ import annotations

import json
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

from engram.benchmarks.comparing import compare
from engram.benchmarks.sink import Sink
from engram.benchmarks.sink.database import use_wal
from engram.benchmarks.sink.state import Mark, metric_key, pending, rewound, tail_digest


def test_a_kill_at_every_call(told, store, folders, monkeypatch, by_client):
    """The process dies at the n-th thing it tells the store, for every n; each time a new one takes over."""
    from mlflow import MlflowClient

    class Killed(BaseException):
        pass

    trials = folders.sweep(seeds=2)
    names = ("create_run", "log_batch", "log_artifact", "log_inputs", "set_terminated", "update_run")
    originals = {name: getattr(MlflowClient, name) for name in names}
    left = [0]

    def dying(name, after):
        def call(self, *args, **kwargs):
            left[0] -= 1
            if left[0] == 0 and not after:
                raise Killed
            found = originals[name](self, *args, **kwargs)
            if left[0] == 0:
                raise Killed  # it was told, and nobody wrote that down
            return found

        return call

    kills = 0
    for attempt in range(60):
        left[0] = 1 + attempt // 2
        for name in names:
            monkeypatch.setattr(MlflowClient, name, dying(name, after=attempt % 2 == 0))
        try:
            assert Sink(folders.out, None).sync(trials, "nets").ok
            break
        except Killed:
            kills += 1
    assert kills > 10
    assert not Sink(folders.out, None).needs_sync(trials, "nets")
    told.assert_once(store)
    assert all(told.status(store, trial)[0] == "FINISHED" for trial in trials)
    assert len(told.rows(store, "select 1 from tags where key = 'engram.sweep'")) == 1


def test_a_locked_database_costs_seconds_and_nothing_else(told, store, folders, monkeypatch):
    monkeypatch.setattr("engram.benchmarks.sink.sync.LOCK_SECONDS", 0.2)
    trials = folders.sweep()
    sink = Sink(folders.out, None)
    assert sink.sync([], None).ok
    holder = sqlite3.connect(store, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    first = sink.sync(trials, "nets")
    assert not first.ok
    assert "locked" in first.message
    assert "\n" not in first.message
    second = sink.sync(trials, "nets")  # at once: it waits before it tries again
    assert not second.ok
    assert "waiting" in second.message
    assert not sink.sync(trials, "nets", now=True).ok
    holder.execute("ROLLBACK")
    holder.close()
    assert sink.sync(trials, "nets", now=True).ok
    told.assert_once(store)


def test_a_broken_database_is_reported(store, folders):
    trials = folders.sweep()
    store.write_bytes(b"this is no database" * 100)
    report = Sink(folders.out, None).sync(trials, "nets")
    assert not report.ok
    assert "not a database" in report.message


NO_DISK = "what MLflow is told must be on a disk that can be written; got "


def test_a_database_that_may_not_grow(told, store, folders):
    trials = folders.sweep()
    before = {path: path.read_bytes() for path in (folders.out / "trials").rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        sink = Sink(folders.out, None)
        report = sink.sync(trials, "nets")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (report.ok, report.lasting, sink.refused) == (False, True, {})
    assert report.message.startswith(NO_DISK) and report.message.endswith("Free some of that disk.")
    assert {path: path.read_bytes() for path in before} == before
    assert Sink(folders.out, None).sync(trials, "nets").ok
    told.assert_once(store)


def test_no_more_is_told_once_it_cannot_be_noted(told, store, folders):
    """A full disk is no trial's fault, and every further one would be told again."""
    trials = folders.sweep()
    note = folders.out / "trials" / trials[2] / f".sink.json.{os.getpid()}"
    note.symlink_to("/dev/full")
    sink = Sink(folders.out, None)
    report = sink.sync(trials, "nets")
    said = f"No space left on device: {note.with_name('sink.json')}. Free some of that disk."
    assert (report.ok, report.message, sink.refused) == (False, NO_DISK + said, {})
    assert len(told.rows(store, "select 1 from tags where key = 'engram.trial'")) == 3
    assert Sink(folders.out, None).sync(trials, "nets").ok
    told.assert_once(store)


def test_a_dead_server_is_reported(folders):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    trials = folders.sweep()
    sink = Sink(folders.out, f"http://me:secret@127.0.0.1:{port}")
    report = sink.sync(trials, "nets")
    assert not report.ok
    assert "refused" in report.message
    assert "secret" not in report.message
    assert sink.needs_sync(trials, "nets")


def test_a_deleted_database_is_rebuilt(told, folders):
    """In the same process too, where mlflow holds on to the file that is no more; under its own name it is whole."""
    trials = folders.sweep(seeds=2)
    sink = Sink(folders.out, None)
    assert sink.sync(trials, "nets").ok
    for path in folders.out.glob("mlflow.db*"):
        path.unlink()
    (folders.out / "mlflow.db.making").write_bytes(b"half of a store whose making was broken off")
    assert sink.needs_sync(trials, "nets")
    assert sink.sync(trials, "nets").ok
    store = folders.out / "mlflow.db"
    told.assert_once(store)
    assert len(told.rows(store, "select 1 from tags where key = 'engram.trial'")) == 4
    assert told.rows(store, "pragma journal_mode") == [("wal",)]


def test_a_run_its_owner_deleted_stays_deleted(told, store, folders):
    trial = folders.trial("mlp", 0, state="interrupted")
    assert Sink(folders.out, None).sync([trial], None).ok
    with sqlite3.connect(store) as connection:
        connection.execute("update runs set lifecycle_stage = 'deleted'")
    connection.close()
    folders.trial("mlp", 0)
    sink = Sink(folders.out, None)
    assert sink.sync([trial], None).ok
    assert told.rows(store, "select count(*) from runs where lifecycle_stage = 'active'") == [(0,)]


def test_readers_and_two_sinks_at_once(told, store, folders):
    trials = folders.sweep()
    stop = threading.Event()
    problems: list[Exception] = []

    def read():
        while not stop.is_set():
            try:
                told.rows(store, "select count(*) from metrics")
            except sqlite3.Error as error:
                problems.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    reports = []
    writers = [
        threading.Thread(target=lambda: reports.append(Sink(folders.out, None).sync(trials, "nets"))) for _ in range(2)
    ]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert problems == []
    assert Sink(folders.out, None).sync(trials, "nets", now=True).ok
    assert any(report.ok for report in reports)
    told.assert_once(store)


def test_long_ledgers_go_in_batches(told, store, folders):
    trial = folders.trial("mlp", 0, epochs=1300, state="interrupted")
    assert [len(lines) for lines, _ in pending(folders.out / "trials" / trial, 0)] == [1000, 1000, 600]
    assert Sink(folders.out, None).sync([trial], None).ok
    assert len(told.points(store, trial, "train/loss")) == 1300
    told.assert_once(store)


def test_names_that_mlflow_rejects_and_numbers_that_are_none(told, store, folders):
    trial = folders.trial("mlp", 0, metrics={"top@5": 0.5, "top%5": 0.6, "a//b": 0.7, "../up": 0.8})
    ledger = folders.out / "trials" / trial / "metrics.jsonl"
    odd = [("odd@name", float("nan")), ("odd%name", float("inf")), ("/slash/", 1.0), (".", 2.0)]
    with ledger.open("a") as file:
        for step, (name, value) in enumerate(odd):
            file.write(json.dumps({"t": 1, "step": step, "name": name, "value": value}) + "\n")
        file.write("not json\n")
    report = Sink(folders.out, None).sync([trial], None)
    assert report.ok, report.message
    told.assert_once(store)
    assert told.points(store, trial, metric_key("top@5"))[0][2] == 0.5
    assert told.points(store, trial, metric_key("top%5"))[0][2] == 0.6
    assert len(told.points(store, trial, metric_key("odd@name"))) == 1


def test_a_mark_of_a_store_that_was_replaced_counts_for_nothing(folders):
    from engram.benchmarks.sink.state import Memory

    memory = Memory(folders.out / "trials" / "x" / "sink.json", "default")
    memory.path.parent.mkdir(parents=True)
    memory.save(Mark(store="1@5", run="r", offset=7))
    assert memory.load("1@5").offset == 7
    assert memory.load("1@6").offset == 0
    memory.path.write_text("{torn")
    assert memory.load("1@5") == Mark(store="1@5")


def test_a_rewound_ledger_is_noticed(folders):
    folder = folders.out / "trials" / folders.trial("mlp", 0)
    size = (folder / "metrics.jsonl").stat().st_size
    mark = Mark(store="s", run="r", offset=size, tail=tail_digest(folder, size))
    assert not rewound(folder, mark)
    (folder / "metrics.jsonl").write_bytes(b"")
    assert rewound(folder, mark)


def test_asking_whether_there_is_news_imports_no_mlflow(folders):
    trials = folders.sweep()
    code = (
        "import sys; from pathlib import Path; from engram.benchmarks.sink import Sink; "
        f"print(Sink(Path({str(folders.out)!r}), None).needs_sync({trials!r}, 'nets')); "
        "print([name for name in ('mlflow', 'torch', 'scipy', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["True", "[]"]


def test_comparing_over_the_store_gives_what_the_folders_give(store, folders):
    trials = folders.sweep(states={("mlp", 2): "failed"})
    assert Sink(folders.out, None).sync(trials, "nets").ok
    ours, theirs = compare(folders.out, "nets"), compare(Path("nowhere"), "nets", tracking_uri=f"sqlite:///{store}")
    assert theirs.groups == ours.groups
    assert theirs.pairs == ours.pairs
    assert [(one.trial, one.status, one.why) for one in theirs.absent] == [
        (one.trial, one.status, one.why) for one in ours.absent
    ]


def test_two_machines_share_a_store(told, store, folders, folders_in, tmp_path):
    """The same sweep ran in two places: each execution keeps its run, and compare counts a trial once."""
    other = folders_in(tmp_path / "other")
    trials = folders.sweep()
    other.sweep()
    for ledger in other.out.rglob("metrics.jsonl"):
        lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        ledger.write_text("".join(json.dumps(line | {"t": line["t"] + 777}) + "\n" for line in lines))
    uri = f"sqlite:///{store}"
    assert Sink(folders.out, uri).sync(trials, "nets").ok
    assert Sink(other.out, uri).sync(trials, "nets").ok
    counts = told.rows(store, "select count(*) from metrics group by run_uuid, key, step")
    assert set(counts) == {(1,)}
    assert len(compare(Path("nowhere"), "nets", tracking_uri=uri).groups[0].scores) == 3


def test_looking_at_the_database_keeps_our_locks_on_it(store):
    use_wal(store)
    ours = sqlite3.connect(store)  # as mlflow's own connection, which stays open between two syncs
    ours.execute("create table kept (x)")
    ours.commit()
    use_wal(store)
    look = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('select count(*) from runs').fetchone()"
    subprocess.run([sys.executable, "-c", look, str(store)], check=True)
    assert store.with_name("mlflow.db-wal").exists()  # or the other process thought itself the last one
    ours.execute("insert into kept values (1)")
    ours.commit()
    assert ours.execute("select * from kept").fetchall() == [(1,)]
    ours.close()
