"""The sink against real SQLite stores: whatever is killed, locked, lost or told twice, every number stands once."""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.compare import compare
from benchmarks.sink import Sink
from benchmarks.sink.state import Mark, metric_key, pending, rewound, tail_digest

pytestmark = [
    # raised inside mlflow, SQLAlchemy and alembic
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A fresh database as mlflow makes it, which takes seconds: made once, copied for every test."""
    out = tmp_path_factory.mktemp("store")
    assert Sink(out, None).sync([], None).ok
    return out / "mlflow.db"


@pytest.fixture
def store(empty_store, folders):
    """The database of ``folders.out``."""
    folders.out.mkdir(parents=True, exist_ok=True)
    path = folders.out / "mlflow.db"
    shutil.copy(empty_store, path)
    with sqlite3.connect(path) as connection:  # as if it had been made here
        place = (folders.out / "mlartifacts").as_uri()
        connection.execute("update experiments set artifact_location = ? where name = 'engram'", (place,))
    connection.close()
    return path


def rows(store, query, *values):
    with sqlite3.connect(store) as connection:
        found = connection.execute(query, values).fetchall()
    connection.close()
    return found


def assert_once(store):
    """Every (run, key, step) stands exactly once, and no trial has two runs."""
    counts = rows(store, "select run_uuid, key, step, count(*) from metrics group by 1, 2, 3 having count(*) > 1")
    assert counts == []
    live = "select run_uuid from runs where lifecycle_stage = 'active'"
    query = f"select value, count(*) from tags where key = 'engram.trial' and run_uuid in ({live}) group by 1"
    assert all(count == 1 for _, count in rows(store, query))


def points(store, trial, name):
    query = """select m.step, m.timestamp, m.value from metrics m join tags t on m.run_uuid = t.run_uuid
               where t.key = 'engram.trial' and t.value = ? and m.key = ? order by m.step"""
    return rows(store, query, trial, name)


def status(store, trial):
    query = """select r.status, r.start_time, r.end_time from runs r join tags t on r.run_uuid = t.run_uuid
               where t.key = 'engram.trial' and t.value = ?"""
    (found,) = rows(store, query, trial)
    return found


def tags(store, trial):
    query = "select run_uuid from tags where key = 'engram.trial' and value = ?"
    ((run,),) = rows(store, query, trial)
    return dict(rows(store, "select key, value from tags where run_uuid = ?", run))


def test_a_sweep_is_told_in_full_and_once(store, folders):
    trials = folders.sweep()
    sink = Sink(folders.out, None)
    assert sink.needs_sync(trials, "nets")
    report = sink.sync(trials, "nets")
    assert (report.ok, report.message, report.trials) == (True, "", 6)
    assert not sink.needs_sync(trials, "nets")
    assert_once(store)
    before = rows(store, "select count(*) from metrics")
    assert sink.sync(trials, "nets").ok
    assert rows(store, "select count(*) from metrics") == before

    trial = trials[0]
    ledger = [json.loads(line) for line in (folders.out / "trials" / trial / "metrics.jsonl").read_text().splitlines()]
    told = [(line["step"], line["t"], line["value"]) for line in ledger if line["name"] == "train/loss"]
    assert points(store, trial, "train/loss") == told
    assert status(store, trial) == ("FINISHED", ledger[0]["t"], ledger[-1]["t"])
    result = json.loads((folders.out / "trials" / trial / "result.json").read_text())["metrics"]
    assert points(store, trial, "test/accuracy")[0][2] == result["test/accuracy"]
    # the ledger has a curve of that name, so the final number has one of its own
    assert points(store, trial, "final/train/loss")[0][2] == result["train/loss"]


def test_tags_params_dataset_and_artifacts(store, folders):
    (trial,) = [folders.trial("lenet5", 1)]
    assert Sink(folders.out, None).sync([trial], None).ok
    found = tags(store, trial)
    assert found["git.commit"] == found["mlflow.source.git.commit"] == "0123456789abcdef0123456789abcdef01234567"
    assert found["git.dirty"] == "True"
    assert found["data.sha256"] == "ab" * 32
    assert len(found["env.sha256"]) == 64
    params = dict(rows(store, "select key, value from params"))
    assert params == {
        "experiment": "backbone.train",
        "dataset": "digits",
        "backbone": "lenet5",
        "seed": "1",
        # off the recipe's value
        **{key: value for key, value in params.items() if key in ("epochs", "lr")},
    }
    assert params["epochs"] == "4"
    ((digest, source),) = rows(store, "select digest, dataset_source from datasets")
    assert ("ab" * 32).startswith(digest)
    assert "ab" * 32 in source
    held = {path.name for path in (folders.out / "mlartifacts").rglob("*.json")}
    assert held == {"config.json", "provenance.json", "result.json"}
    ((location,),) = rows(store, "select artifact_location from experiments where name = 'engram'")
    assert Path(location.removeprefix("file://")).is_absolute()


def test_children_hang_below_the_sweep_which_has_the_table(store, folders):
    trials = folders.sweep()
    assert Sink(folders.out, None).sync(trials, "nets").ok
    ((parent,),) = rows(store, "select run_uuid from tags where key = 'engram.sweep' and value = 'nets'")
    assert {tags(store, trial)["mlflow.parentRunId"] for trial in trials} == {parent}
    told = dict(rows(store, "select key, value from metrics where run_uuid = ?", parent))
    comparison = compare(folders.out, "nets")
    for group in comparison.groups:
        key = f"backbone {group.label}/test/accuracy"
        assert told[f"{key}/mean"] == group.interval.mean
        assert told[f"{key}/low"] == group.interval.low
        assert told[f"{key}/high"] == group.interval.high
        assert told[f"{key}/n"] == 3


def test_the_table_of_a_sweep_that_grew_replaces_the_old_one(store, folders):
    sink = Sink(folders.out, None)
    assert sink.sync(folders.sweep(seeds=2), "nets").ok
    trials = folders.sweep(seeds=3)
    assert sink.needs_sync(trials, "nets")
    assert sink.sync(trials, "nets").ok
    live = "select run_uuid from runs where lifecycle_stage = 'active'"
    found = rows(store, f"select run_uuid from tags where key = 'engram.sweep' and run_uuid in ({live})")
    ((parent,),) = found
    query = "select value from metrics where run_uuid = ? and key = 'backbone mlp/test/accuracy/n'"
    assert rows(store, query, parent) == [(3.0,)]
    assert {tags(store, trial)["mlflow.parentRunId"] for trial in trials} == {parent}
    assert_once(store)


def test_no_table_before_the_last_trial_is_over(store, folders):
    trials = folders.sweep(states={("mlp", 2): "interrupted"})
    sink = Sink(folders.out, None)
    assert sink.sync(trials, "nets").ok
    query = "select count(*) from metrics where key like 'backbone %'"
    assert rows(store, query) == [(0,)]
    folders.sweep()
    assert sink.sync(trials, "nets").ok
    assert rows(store, query)[0][0] > 0
    assert_once(store)


@pytest.mark.parametrize("forget", [False, True])
def test_replay_after_every_cut_of_the_ledger(store, folders, forget):
    """A worker dies at any byte, is resumed, dies again: the sink follows, with its own memory or without."""
    trial = folders.trial("mlp", 0, epochs=3, state="interrupted")
    ledger = folders.out / "trials" / trial / "metrics.jsonl"
    whole = ledger.read_bytes()
    for cut in range(0, len(whole), 37):
        ledger.write_bytes(whole[:cut])
        if forget:
            (ledger.parent / "sink.json").unlink(missing_ok=True)
        report = Sink(folders.out, None).sync([trial], None)
        assert report.ok, report.message
    ledger.write_bytes(whole)
    sink = Sink(folders.out, None)
    assert sink.sync([trial], None).ok
    assert not sink.needs_sync([trial], None)
    assert_once(store)
    assert len(points(store, trial, "train/loss")) == 3
    assert status(store, trial)[0] == "KILLED"


def test_a_tail_lost_with_the_power_and_logged_again_is_not_doubled(store, folders):
    trial = folders.trial("mlp", 0, state="interrupted")
    ledger = folders.out / "trials" / trial / "metrics.jsonl"
    lines = ledger.read_text().splitlines()
    assert Sink(folders.out, None).sync([trial], None).ok
    later = [json.dumps(json.loads(line) | {"t": json.loads(line)["t"] + 5000}) for line in lines[-3:]]
    ledger.write_text("\n".join([*lines[:-3], *later]) + "\n")
    sink = Sink(folders.out, None)
    assert sink.needs_sync([trial], None)
    assert sink.sync([trial], None).ok
    assert_once(store)
    assert not sink.needs_sync([trial], None)


def test_states_follow_the_trial(store, folders):
    trial = folders.trial("mlp", 0, state="interrupted")
    folder = folders.out / "trials" / trial
    sink = Sink(folders.out, None)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sink.sync([trial], None).ok
        assert status(store, trial)[0] == "RUNNING"
    assert sink.sync([trial], None).ok
    assert status(store, trial)[0] == "KILLED"
    folders.trial("mlp", 0, state="failed")
    assert sink.sync([trial], None).ok
    assert status(store, trial)[0] == "FAILED"
    assert tags(store, trial)["engram.error"] == "loss must be finite; got nan."
    (folder / "error.json").unlink()
    folders.trial("mlp", 0)
    assert sink.sync([trial], None).ok
    assert status(store, trial)[0] == "FINISHED"
    assert_once(store)


def test_a_trial_that_has_not_begun_has_no_run(store, folders):
    trial = folders.trial("mlp", 0, state="new")
    sink = Sink(folders.out, None)
    assert not sink.needs_sync([trial], None)
    assert sink.sync([trial], None).ok
    assert rows(store, "select count(*) from tags where key = 'engram.trial'") == [(0,)]


def test_the_marks_are_lost_and_found_by_tag(store, folders):
    trials = folders.sweep()
    assert Sink(folders.out, None).sync(trials, "nets").ok
    before = rows(store, "select count(*) from runs"), rows(store, "select count(*) from metrics")
    for path in folders.out.rglob("sink.json"):
        path.unlink()
    assert Sink(folders.out, None).sync(trials, "nets").ok
    assert (rows(store, "select count(*) from runs"), rows(store, "select count(*) from metrics")) == before
    assert_once(store)


def test_a_kill_at_every_call(store, folders, monkeypatch):
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
    assert_once(store)
    assert all(status(store, trial)[0] == "FINISHED" for trial in trials)
    assert len(rows(store, "select 1 from tags where key = 'engram.sweep'")) == 1


def test_a_locked_database_costs_seconds_and_nothing_else(store, folders, monkeypatch):
    monkeypatch.setattr("benchmarks.sink.sync.LOCK_SECONDS", 0.2)
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
    assert_once(store)


def test_a_broken_database_is_reported(store, folders):
    trials = folders.sweep()
    store.write_bytes(b"this is no database" * 100)
    report = Sink(folders.out, None).sync(trials, "nets")
    assert not report.ok
    assert "not a database" in report.message


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


def test_a_deleted_database_is_rebuilt(folders, empty_store):
    """In the same process too, where mlflow holds on to the file that is no more."""
    trials = folders.sweep(seeds=2)
    sink = Sink(folders.out, None)
    assert sink.sync(trials, "nets").ok
    for path in folders.out.glob("mlflow.db*"):
        path.unlink()
    assert sink.needs_sync(trials, "nets")
    assert sink.sync(trials, "nets").ok
    store = folders.out / "mlflow.db"
    assert_once(store)
    assert len(rows(store, "select 1 from tags where key = 'engram.trial'")) == 4
    assert rows(store, "pragma journal_mode") == [("wal",)]


def test_a_run_its_owner_deleted_stays_deleted(store, folders):
    trial = folders.trial("mlp", 0, state="interrupted")
    assert Sink(folders.out, None).sync([trial], None).ok
    with sqlite3.connect(store) as connection:
        connection.execute("update runs set lifecycle_stage = 'deleted'")
    connection.close()
    folders.trial("mlp", 0)
    sink = Sink(folders.out, None)
    assert sink.sync([trial], None).ok
    assert rows(store, "select count(*) from runs where lifecycle_stage = 'active'") == [(0,)]


def test_readers_and_two_sinks_at_once(store, folders):
    trials = folders.sweep()
    stop = threading.Event()
    problems: list[Exception] = []

    def read():
        while not stop.is_set():
            try:
                rows(store, "select count(*) from metrics")
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
    assert_once(store)


def test_long_ledgers_go_in_batches(store, folders):
    trial = folders.trial("mlp", 0, epochs=1300, state="interrupted")
    assert [len(lines) for lines, _ in pending(folders.out / "trials" / trial, 0)] == [1000, 1000, 600]
    assert Sink(folders.out, None).sync([trial], None).ok
    assert len(points(store, trial, "train/loss")) == 1300
    assert_once(store)


def test_names_that_mlflow_rejects_and_numbers_that_are_none(store, folders):
    trial = folders.trial("mlp", 0, metrics={"top@5": 0.5, "top%5": 0.6, "a//b": 0.7, "../up": 0.8})
    ledger = folders.out / "trials" / trial / "metrics.jsonl"
    odd = [("odd@name", float("nan")), ("odd%name", float("inf")), ("/slash/", 1.0), (".", 2.0)]
    with ledger.open("a") as file:
        for step, (name, value) in enumerate(odd):
            file.write(json.dumps({"t": 1, "step": step, "name": name, "value": value}) + "\n")
        file.write("not json\n")
    report = Sink(folders.out, None).sync([trial], None)
    assert report.ok, report.message
    assert_once(store)
    assert points(store, trial, metric_key("top@5"))[0][2] == 0.5
    assert points(store, trial, metric_key("top%5"))[0][2] == 0.6
    assert len(points(store, trial, metric_key("odd@name"))) == 1


def test_a_mark_of_a_store_that_was_replaced_counts_for_nothing(folders):
    from benchmarks.sink.state import Memory

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
        "import sys; from pathlib import Path; from benchmarks.sink import Sink; "
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


def test_two_machines_share_a_store(store, folders, folders_in, tmp_path):
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
    counts = rows(store, "select count(*) from metrics group by run_uuid, key, step")
    assert set(counts) == {(1,)}
    assert len(compare(Path("nowhere"), "nets", tracking_uri=uri).groups[0].scores) == 3
