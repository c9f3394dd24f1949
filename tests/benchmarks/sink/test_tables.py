"""Runs told straight into an MLflow database, held against those that MLflow's own client is told."""

from __future__ import annotations

import fcntl
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.engine import Engine

from engram.benchmarks.records.lines import Line
from engram.benchmarks.sink import Sink
from engram.benchmarks.sink.runs import Beginning, ClientRuns, News
from engram.benchmarks.sink.state import Memory
from engram.benchmarks.sink.sync import connect
from engram.benchmarks.sink.tables import TableRuns

NAMES = st.sampled_from(["loss", "accuracy", "top@5"])
LINES = st.lists(st.builds(Line, t=st.integers(0, 3), step=st.integers(-1, 2), name=NAMES, value=st.floats(-2, 2)))
TEXTS = st.dictionaries(st.sampled_from(["a", "b/c", "engram.aside", "mlflow.user"]), st.sampled_from(["x", "y", "é"]))
ENDS = st.sampled_from([("", None), ("RUNNING", None), ("FINISHED", 5), ("FAILED", 6), ("KILLED", 7)])


@st.composite
def news(draw):
    status, end = draw(ENDS)
    return {
        "tags": draw(TEXTS),
        "name": draw(st.sampled_from(["", "one", "two"])),
        "params": draw(st.dictionaries(st.sampled_from(["lr", "b.width"]), st.sampled_from(["1", "2"]))),
        "lines": draw(LINES),
        "once": draw(st.booleans()),
        "final": draw(st.lists(st.builds(Line, t=st.just(9), step=st.just(9), name=NAMES, value=st.floats(-2, 2)))),
        "status": status,
        "end": end,
        "forget": draw(st.booleans()),
        "data": draw(st.sampled_from([None, "digits", "mnist"])),
    }


def dataset(name):
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput

    made = MetaDataset(CodeDatasetSource(tags={"dataset": name}), name=name, digest=name)
    return DatasetInput(made._to_mlflow_entity(), tags=[])


def told_by(runs, client, beginning, parts):
    run = beginning
    for about in parts:
        part = dict(about)
        name, forget = part.pop("data"), part.pop("forget")
        untag = "engram.aside" if not isinstance(run, Beginning) and "engram.aside" in run.tags else ""
        part["tags"] = {key: value for key, value in part["tags"].items() if key != untag}
        given = News(**part, untag=untag, dataset=dataset(name) if name else None)
        run = runs.tell(run, given)
        again = runs.known([run.run])[run.run]
        assert (again.tags, again.name, again.status, again.files) == (run.tags, run.name, run.status, run.files)
        if forget:  # as after a kill: all of it again
            run = runs.tell(again, given if not untag else News(**part))
    return run.run


def read(client, run):
    """All that MLflow's client says of a run, but for its id."""
    found = client.get_run(run)
    info = {**dict(found.info), "run_id": "", "run_uuid": "", "artifact_uri": found.info.artifact_uri.replace(run, "")}
    metrics = {
        name: sorted((one.step, one.timestamp, one.value) for one in client.get_metric_history(run, name))
        for name in found.data.metrics
    }
    inputs = [(one.dataset.to_dictionary(), one.tags) for one in found.inputs.dataset_inputs]
    return info, found.data.to_dictionary(), metrics, inputs


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(news(), min_size=1, max_size=3))
def test_mlflow_reads_the_same_of_both(store, parts):
    client = connect(f"sqlite:///{store}")
    found = [
        read(client, told_by(runs, client, Beginning("1", "first", 1234), parts))
        for runs in (TableRuns.of(client), ClientRuns(client))
    ]
    assert found[0] == found[1]


def scene(folders, act):
    """Trials in every state, told by ``act`` while they change."""
    trials = folders.sweep(states={("lenet5", 1): "interrupted", ("mlp", 0): "failed", ("mlp", 2): "new"})
    alone = folders.trial("vgg-tiny")
    act([alone], None)
    with (folders.out / "trials" / trials[1] / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        act(trials, "nets")
    act([alone], "nets")
    folders.sweep()
    (folders.out / "trials" / trials[3] / "error.json").unlink()
    act([*trials, alone], "nets")


ABOUT = {
    "runs": "select r.name, status, start_time, end_time, source_type, source_name, entry_point_name, user_id,"
    " source_version, r.lifecycle_stage, deleted_time, e.name from runs r join experiments e using (experiment_id)",
    "tags": "select r.name, key, iif(key in ('mlflow.parentRunId', 'engram.home'), '', value) from tags"
    " join runs r using (run_uuid)",
    "params": "select r.name, key, value from params join runs r using (run_uuid)",
    "metrics": "select r.name, key, timestamp, step, value, is_nan from metrics join runs r using (run_uuid)",
    "latest": "select r.name, key, timestamp, step, value, is_nan from latest_metrics join runs r using (run_uuid)",
    "inputs": "select r.name, d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_schema,"
    " d.dataset_profile, i.step from inputs i join datasets d on d.dataset_uuid = i.source_id"
    " join runs r on r.run_uuid = i.destination_id",
    "children": "select p.name, r.name from tags t join runs r using (run_uuid) join runs p on p.run_uuid = t.value"
    " where t.key = 'mlflow.parentRunId'",
}


def everything(told, store):
    """What stands in a database but for its ids, and in the files of its runs."""
    rows = {}
    for name, query in ABOUT.items():
        rows[name] = sorted(told.rows(store, query), key=repr)
    names = dict(told.rows(store, "select run_uuid, name from runs"))
    places = store.parent / "mlartifacts"
    files = sorted(
        (names[path.relative_to(places).parts[0]], path.relative_to(places).parts[2:], path.read_bytes())
        for path in places.rglob("*")
        if path.is_file() and path.name != "report.html"
    )
    return rows | {"files": files}


def test_a_sweep_is_told_the_same_in_both_ways(told, put_store, folders_in, tmp_path, request):
    found = []
    for way in ("tables", "client"):
        if way == "client":
            request.getfixturevalue("by_client")
        folders = folders_in(tmp_path / way)
        store = put_store(folders.out)

        def act(trials, sweep, out=folders.out):
            report = Sink(out, None).sync(trials, sweep)
            assert report.ok, report.message

        scene(folders, act)
        found.append(everything(told, store))
        told.assert_once(store)
    for name, rows in found[0].items():
        assert rows == found[1][name], name


class Killed(BaseException):
    pass


def test_a_kill_at_every_statement(told, put_store, folders_in, tmp_path, monkeypatch):
    """The process dies at the n-th statement, commit or mark, for every n, and another one takes over."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    left = [0]

    def count(*args):
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    save = Memory.save

    def saving(self, mark):
        count()
        save(self, mark)

    whole, killed = folders_in(tmp_path / "whole"), folders_in(tmp_path / "killed")
    stores = [put_store(each.out) for each in (whole, killed)]
    for folders in (whole, killed):
        trials = folders.sweep(seeds=1, states={("mlp", 0): "interrupted"})
    assert Sink(whole.out, None).sync(trials, "nets", now=True).ok
    monkeypatch.setattr(Memory, "save", saving)
    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    try:
        for kills in range(400):
            left[0] = 1 + kills
            try:
                assert Sink(killed.out, None).sync(trials, "nets", now=True).ok
                break
            except Killed:
                SqlAlchemyStore._engine_map[f"sqlite:///{stores[1]}"].dispose()  # as the end of a process does
                if kills % 7 == 0:  # it may also lose what it remembers
                    for path in killed.out.rglob("sink.json"):
                        path.unlink()
    finally:
        event.remove(Engine, "before_cursor_execute", count)
        event.remove(Engine, "commit", count)
    assert 20 < kills < 399
    told.assert_once(stores[1])
    assert everything(told, stores[1]) == everything(told, stores[0])


def test_trials_that_run_are_followed_and_the_rest_waits(told, store, folders, monkeypatch):
    trials = folders.sweep(states={("mlp", 1): "interrupted", ("mlp", 2): "new"})
    sink = Sink(folders.out, None)
    assert sink.follow(trials, "nets").ok  # the first time as a whole
    assert told.status(store, trials[4])[0] == "KILLED"
    asked = []
    monkeypatch.setattr(Sink, "_sync", lambda *args, **named: asked.append(args))
    folders.trial("mlp", 1)
    ledger = folders.out / "trials" / trials[5] / "metrics.jsonl"
    folders.trial("mlp", 2, state="interrupted")
    with (ledger.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sink.follow(trials, "nets").ok
        assert told.status(store, trials[5])[0] == "RUNNING"
    assert told.status(store, trials[4])[0] == "FINISHED"
    read = []
    monkeypatch.setattr("engram.benchmarks.sink.sync.behind", lambda record, mark: read.append(record.trial))
    assert sink.follow(trials, "nets").ok and read == [trials[5]]  # what is over is not looked at again
    monkeypatch.undo()
    monkeypatch.setattr(Sink, "_sync", lambda *args, **named: asked.append(args))
    assert asked == []
    for path in folders.out.glob("mlflow.db*"):
        path.unlink()
    assert sink.follow(trials, "nets").ok and asked  # another store: all of it


def test_a_trial_that_has_just_begun_is_told_when_it_is_over_or_older(told, store, folders, monkeypatch):
    trial = folders.trial("mlp", 0, state="interrupted")
    monkeypatch.setattr("engram.benchmarks.sink.state.YOUNG_MS", 1e14)
    sink = Sink(folders.out, None)
    with (folders.out / "trials" / trial / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sink.follow([trial], None).ok
        assert told.rows(store, "select * from runs") == []
        monkeypatch.undo()
        assert sink.follow([trial], None).ok
        assert told.status(store, trial)[0] == "RUNNING"


def test_following_a_store_that_fails_waits_and_begins_anew(store, folders, monkeypatch):
    trials = folders.sweep(states={("mlp", 2): "interrupted"})
    sink = Sink(folders.out, None)
    assert sink.follow(trials, "nets").ok
    folders.trial("mlp", 2)
    with monkeypatch.context() as broken:
        broken.setattr(TableRuns, "tell", lambda *args: 1 / 0)
        broken.setattr("engram.benchmarks.sink.sync.concerns_one", lambda *args: False)
        assert not sink.follow(trials, "nets").ok
        assert "waiting" in sink.follow(trials, "nets").message
    monkeypatch.setattr(sink, "_not_before", 0.0)
    assert sink.follow(trials, "nets").ok
    assert not sink.needs_sync(trials, "nets")


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_nothing_is_told_to_what_was_deleted_meanwhile(told, store, what):
    client = connect(f"sqlite:///{store}")
    runs = TableRuns.of(client)
    run = Beginning("1", "first", 1)
    if what == "run":
        run = runs.tell(run, News())
        client.delete_run(run.run)
    else:
        client.delete_experiment("1")
    before = told.rows(store, "select count(*) from tags")
    with pytest.raises(Exception, match="must be in the store; got one that was deleted"):
        runs.tell(run, News(tags={"a": "b"}))
    assert told.rows(store, "select count(*) from tags") == before
    shutil.rmtree(store.parent / "mlartifacts", ignore_errors=True)
