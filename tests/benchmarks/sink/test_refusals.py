"""What a store does not take: one trial, the whole experiment, odd names; the rest goes on, and is said as it is."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from engram.backbone.contract import Places
from engram.benchmarks.cli import main
from engram.benchmarks.commands import doctor
from engram.benchmarks.compare.wanted import Wanted
from engram.benchmarks.comparing import compare
from engram.benchmarks.driving.feeder import Feeder
from engram.benchmarks.sink import Sink
from engram.benchmarks.sink.database import uri_of
from engram.benchmarks.sink.files import place_of
from engram.benchmarks.sink.params import clean
from engram.benchmarks.sink.runs import in_requests
from engram.benchmarks.sink.state import metric_key
from engram.benchmarks.sink.store import Teller

HUGE = 99999999999999999999  # no 64 bits hold it


@pytest.fixture
def hurried(monkeypatch):
    """Nobody waits for a store."""

    def waited(seconds):
        raise AssertionError(f"waited {seconds} s")

    monkeypatch.setattr("engram.benchmarks.driving.feeder.time.sleep", waited)


def with_step(folders, trial, step):
    ledger = folders.out / "trials" / trial / "metrics.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    ledger.write_text("".join(json.dumps(line) + "\n" for line in [*lines[:-1], lines[-1] | {"step": step}]))


def test_one_trial_that_is_refused_blocks_no_other(told, store, folders, capsys, hurried):
    trials = folders.sweep(seeds=2)
    bad = trials[0]
    with_step(folders, bad, HUGE)
    feeder = Feeder(folders.out, None, trials, "nets")
    assert feeder.finish() == ""
    assert list(feeder.sink.refused) == [f"trial {bad}"]
    assert [told.status(store, trial)[0] for trial in trials] == ["KILLED", "FINISHED", "FINISHED", "FINISHED"]
    mark = json.loads((folders.out / "trials" / bad / "sink.json").read_text())["default"]
    assert mark["aside"] == told.tags(store, bad)["engram.aside"]
    assert "64 bits" in mark["aside"] and str(HUGE) in mark["aside"]
    (absent,) = compare(Path("nowhere"), "nets", tracking_uri=uri_of(store)).absent
    assert absent.why == mark["aside"]

    assert main(["sync", "--out", str(folders.out)]) == 1
    said = capsys.readouterr()
    assert said.out == "3 of 4 trials are in MLflow\n"
    assert said.err == f"engram: not in MLflow: trial {bad}: {mark['aside']} Then: engram sync --out {folders.out}\n"
    with_step(folders, bad, 40)
    assert main(["sync", "--out", str(folders.out)]) == 0
    assert capsys.readouterr().out == "4 trials are in MLflow\n"
    assert "engram.aside" not in told.tags(store, bad)
    told.assert_once(store)


@pytest.mark.parametrize("way", ["tables", "client"])
def test_whatever_fails_with_one_trial_alone_is_set_aside(told, store, folders, monkeypatch, request, way):
    """A refusal that nobody foresaw; but a store that no longer answers is no trial's fault."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from engram.benchmarks.sink.runs import ClientRuns
    from engram.benchmarks.sink.tables import TableRuns

    if way == "client":
        request.getfixturevalue("by_client")
    kind = {"tables": TableRuns, "client": ClientRuns}[way]
    trials = [folders.trial("mlp", seed) for seed in range(3)]
    tell, gone = kind.tell, []

    def failing(self, run, news):
        if news.tags["engram.trial"] == trials[0]:
            raise MlflowException("no room for it")  # by the code that a server's crash has too
        return tell(self, run, news)

    def answering(self, experiment):
        if gone:
            raise ConnectionRefusedError

    monkeypatch.setattr(kind, "tell", failing)
    monkeypatch.setattr(MlflowClient, "get_experiment", answering)
    gone.append("away")
    assert not Sink(folders.out, None).sync(trials, None).ok
    gone.clear()
    sink = Sink(folders.out, None)
    report = sink.sync(trials, None)
    assert (report.ok, report.trials) == (True, 2)
    assert sink.refused == {f"trial {trials[0]}": "no room for it. Mend that, or delete its folder."}


def test_a_deleted_experiment_is_said_at_once(told, store, folders, capsys, hurried):
    from mlflow import MlflowClient

    trials = [folders.trial("mlp", seed) for seed in range(2)]
    command = ["sync", "--out", str(folders.out)]
    assert main(command) == 0
    client = MlflowClient(tracking_uri=uri_of(store))
    experiment = client.get_experiment_by_name("engram").experiment_id
    client.delete_experiment(experiment)
    capsys.readouterr()
    assert main(command) == 1  # though the trials' marks say that all was told
    said = capsys.readouterr()
    assert said.out == ""
    assert "deleted in MLflow. Restore it (MLFLOW_TRACKING_URI=" in said.err
    assert f"mlflow experiments restore --experiment-id {experiment})" in said.err
    assert "deleted in MLflow" in Feeder(folders.out, None, [*trials, folders.trial("mlp", 2)], None).finish()
    assert main(["compare", "nets", "--tracking-uri", uri_of(store)]) == 2
    client.restore_experiment(experiment)
    assert main(command) == 0
    client.delete_run(told.rows(store, "select run_uuid from tags where value = ?", trials[0])[0][0])
    capsys.readouterr()
    assert main(command) == 0  # its owner's wish
    said = capsys.readouterr()
    assert (said.out, said.err) == ("2 of 3 trials are in MLflow\n", "engram: deleted in MLflow, and left so: 1\n")


def test_a_run_that_is_deleted_while_it_is_told_is_said_as_it_is(store, folders, monkeypatch):
    trial = folders.trial("mlp", 0)
    assert Sink(folders.out, None).sync([trial], None).ok
    result = folders.out / "trials" / trial / "result.json"
    result.write_text(result.read_text() + "\n")  # it was run again
    look = Teller.look

    def look_and_delete(self, trials):
        look(self, trials)
        self.client.delete_run(trials[0][1].run)

    monkeypatch.setattr(Teller, "look", look_and_delete)
    sink = Sink(folders.out, None)
    assert sink.sync([trial], None).ok
    said = "a run must be in the store; got one that was deleted in MLflow just now. Restore it."
    assert sink.refused == {f"trial {trial}": said}


def test_what_is_long_is_shortened(told, store, folders):
    path = "folder:/" + "a/" * 300
    order = list(range(3000))
    trials = [
        folders.trial(net, seed, options={"dataset": path, "order": order})
        for net in ("mlp", "lenet5")
        for seed in range(3)
    ]
    planned = [
        {"trial": trial, "options": {"backbone": net}}
        for trial, net in zip(trials, ["mlp"] * 3 + ["lenet5"] * 3, strict=True)
    ]
    axes = {"backbone": ["mlp", "lenet5"], "order": [order]}
    folders.json(
        folders.out / "sweeps" / "nets" / "plan.json",
        {"name": "nets", "axes": axes, "seeds": [0, 1, 2], "trials": planned},
    )
    sink = Sink(folders.out, None)
    assert sink.sync(trials, "nets").ok and sink.refused == {}
    assert told.rows(store, "select max(length(name)) from datasets") == [(500,)]
    ours, theirs = (
        compare(folders.out, "nets", wanted=Wanted(by="backbone")),
        compare(Path("none"), "nets", wanted=Wanted(by="backbone"), tracking_uri=uri_of(store)),
    )
    assert (theirs.groups, theirs.pairs) == (ours.groups, ours.pairs)


def test_all_that_we_make_of_names_is_taken_by_mlflow():
    from mlflow.store.artifact.artifact_repo import verify_artifact_path
    from mlflow.utils.uri import validate_path_is_safe
    from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag

    rng = random.Random(0)
    signs = "aZ0._-/ #?%\\:@\0\n\x7f\N{BLACK HEART SUIT}\N{LATIN SMALL LETTER E WITH ACUTE}\udce9"
    names = ["".join(rng.choices(signs, k=rng.choice((1, 2, 3, 5, 9)))) for _ in range(800)]
    names += ["x" * 999, "é" * 999, "a/" * 999, "..", "C:/x", "a#b.csv", "a%23b.csv", "../up", "a/./b"]
    for name in names:
        key, place = metric_key(name), place_of(name)
        _validate_metric(key, 1.0, 1, 1)
        _validate_param(key, clean(name))
        _validate_tag(f"engram.in.{key}", clean(name))
        verify_artifact_path(place)
        assert validate_path_is_safe(place) == place, name
        place.encode()
        assert max(len(part.encode()) for part in place.split("/")) < 200
    for mend in (metric_key, place_of):
        assert len({mend(name) for name in set(names)}) == len(set(names))


def test_a_request_is_never_too_large():
    from mlflow.entities import Metric
    from mlflow.protos.service_pb2 import LogBatch
    from mlflow.utils.proto_json_utils import message_to_json

    metrics = [Metric(200 * "\N{BLACK HEART SUIT}", float(step), 1, step) for step in range(1000)]
    parts = list(in_requests(metrics, 1000))
    assert [metric for part in parts for metric in part] == metrics
    assert [len(part) for part in in_requests([Metric("x", 1.0, 1, 1)] * 1001, 1000)] == [1000, 1]
    for part in parts:
        assert len(message_to_json(LogBatch(run_id=32 * "0", metrics=[one.to_proto() for one in part]))) <= 1_000_000


def test_any_folder_can_hold_a_store(told, put_store, folders_in, tmp_path):
    """What SQLAlchemy and MLflow make of the signs in a path shows in no other one."""
    folders = folders_in(tmp_path / "odd a%20b" / "c?d=1#e;\N{BLACK HEART SUIT}'")
    trial = folders.trial("mlp")
    put_store(folders.out)
    assert Sink(folders.out, None).sync([trial], None).ok
    assert "1 runs, journal mode wal" in list(doctor.store(Places(out=folders.out, data=tmp_path)))[-1].found
    assert [path.name for path in tmp_path.iterdir()] == ["odd a%20b"]
    assert [path.name for path in folders.out.parent.iterdir()] == [folders.out.name]
    assert told.status(folders.out / "mlflow.db", trial)[0] == "FINISHED"
    (run,) = (folders.out / "mlartifacts").iterdir()
    assert (run / "artifacts" / "model" / "model.safetensors").is_file()


def test_a_copy_keeps_its_files_to_itself(told, store, folders, tmp_path):
    first, later = folders.trial("mlp", 0), folders.trial("mlp", 1, state="interrupted")
    assert Sink(folders.out, None).sync([first, later], None).ok
    copy = tmp_path / "copy"
    shutil.copytree(folders.out, copy)
    before = sorted(folders.out.rglob("*"))
    folders.out = copy
    folders.trial("mlp", 1)
    assert Sink(copy, None).sync([first, later], None).ok
    assert sorted((tmp_path / "runs").rglob("*")) == before
    places = [
        Path(place.removeprefix("file://"))
        for (place,) in told.rows(copy / "mlflow.db", "select artifact_uri from runs")
    ]
    assert [place.is_relative_to(copy / "mlartifacts") for place in places] == [True, True]
    assert all((place / "model" / "model.safetensors").is_file() for place in places)


def test_nothing_leaves_a_strangers_folder(told, store, folders, tmp_path):
    (tmp_path / "secrets").mkdir()
    for name in ("key", "error.json", "other"):
        (tmp_path / "secrets" / name).write_text("secret")
    trial = folders.trial("mlp")
    folder = folders.out / "trials" / trial
    result = json.loads((folder / "result.json").read_text())
    (folder / "log.txt").symlink_to(tmp_path / "secrets" / "key")
    (folder / "error.json").symlink_to(tmp_path / "secrets" / "error.json")
    (folder / "model" / "more").symlink_to(tmp_path / "secrets")
    (folder / "model" / "key").symlink_to(tmp_path / "secrets" / "key")
    (folder / "model" / "within").symlink_to("model.safetensors")
    artifacts = {"model": "model", "up": "../../../secrets/key", "there": str(tmp_path / "secrets"), "gone": "gone"}
    folders.json(folder / "result.json", result | {"artifacts": artifacts})
    assert Sink(folders.out, None).sync([trial], None).ok
    sent = [path for path in (folders.out / "mlartifacts").rglob("*") if path.is_file()]
    assert [path for path in sent if b"secret" in path.read_bytes() and path.name != "result.json"] == []
    assert {"model.safetensors", "within"} == {path.name for path in sent if path.parent.name == "model"}
    left = told.tags(store, trial)["engram.left_out"]
    for name in ("log.txt", "error.json", "model/key", *artifacts.values()):
        assert name == "model" or f"{name} (" in left


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://me:secret@[bad", "(it cannot be read)"),
        ("http://me:secret@host:99999", "(its port is none)"),
        ("localhost:5000", "(MLflow knows no such scheme)"),
        ("http:///x", "(it names no host)"),
        ("", "got '' (it names no host)"),
        ("http://me:secret/secret@host:5000", "(its port is none)"),
        ("postgresql://me:secret@host/mlflow", "keeps the files). Name the server in front of it: mlflow server "),
        ("mysql+pymysql://me:secret@host/mlflow", "keeps the files). Name the server in front of it: mlflow server "),
    ],
)
def test_what_is_no_address_is_said_before_any_work(folders, capsys, address, said):
    folders.sweep()
    for words in (["sync"], ["compare", "nets"], ["run", "backbone.train"]):
        assert main([*words, "--out", str(folders.out), "--tracking-uri", address]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("engram: --tracking-uri must be an address of MLflow") and said in line
        assert "secret" not in line
