"""Networks in MLflow's model registry: put there once, without a pickle, and loaded from there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import engram
from engram.backbone.registry import Registry
from engram.benchmarks.cli import main
from engram.benchmarks.commands.plans import planner_for
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.records.trials import Record
from engram.benchmarks.sink.database import uri_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An output folder with one small trial, without its MLflow database, and the trial's id."""
    out = tmp_path_factory.mktemp("trained") / "runs"
    done = engram.run("backbone.train", backbone="mlp", backbone_options={"width": 0.1}, epochs=1, out=out)
    for path in out.glob("mlflow.db*"):
        path.unlink()
    for path in out.rglob("sink.json"):
        path.unlink()
    shutil.rmtree(out / "mlartifacts", ignore_errors=True)
    return out, done.id


@pytest.fixture
def ready(trained, put_store, tmp_path):
    """A copy of it with an empty store."""
    out, trial = trained
    shutil.copytree(out, tmp_path / "runs")
    put_store(tmp_path / "runs")
    return tmp_path / "runs", trial


def client_of(out):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri_of(out / "mlflow.db"))


def test_a_promoted_network_loads_from_the_registry_and_is_there_once(ready, capsys, tmp_path, monkeypatch):
    from mlflow import artifacts

    out, trial = ready
    words = ["promote", trial[:8], "digits-mlp", "--alias", "champion", "--out", str(out)]
    assert main(words) == 0
    assert capsys.readouterr().out == "models:/digits-mlp@champion\n"
    assert main([*words[:3], "--out", str(out)]) == 0  # again: the same version
    assert capsys.readouterr().out == "models:/digits-mlp/1\n"
    client = client_of(out)
    version = client.get_model_version_by_alias("digits-mlp", "champion")
    made = engram.load(out / "trials" / trial).made
    assert (version.tags["dataset"], version.tags["data.sha256"]) == ("digits", made.data.fingerprint)
    assert (version.tags["engram.trial"], version.tags["engram.sha256"]) == (trial, made.sha256)
    assert float(version.tags["metric.test/accuracy"]) == made.test_accuracy
    assert client.get_run(version.run_id).data.tags["engram.trial"] == trial
    shutil.copytree(out, tmp_path / "copy")
    shutil.rmtree(out)
    assert main(["sync", "--out", str(tmp_path / "copy")]) == 0
    (run,) = (tmp_path / "copy" / "trials").iterdir()
    assert main([*words[:-1], str(tmp_path / "copy")]) == 0  # a copied folder has its registry too
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(tmp_path / "copy" / "mlflow.db"))
    back = Path(artifacts.download_artifacts("models:/digits-mlp@champion", dst_path=str(tmp_path / "back")))
    images = torch.rand(4, *made.in_shape)
    assert torch.equal(engram.load(back).predict(images), engram.load(run).predict(images))
    assert {path.name for path in back.iterdir()} >= {"MLmodel", "model.json", "model.safetensors"}
    manifest = yaml.safe_load((back / "MLmodel").read_text())
    assert set(manifest["flavors"]) == {"engram"}
    assert f"-1, {made.in_shape[0]}, {made.in_shape[1]}" in manifest["signature"]["inputs"]


def test_what_cannot_be_promoted(ready, folders_in, capsys):
    out, trial = ready
    broken = folders_in(out).trial("mlp")  # its weights are none
    for words, said in (
        (("nothing", "name"), "TRIAL must be a trial below"),
        ((broken, "name"), "TRIAL must be one that saved a network"),
        ((trial, "a/b:c"), "the registered model must be one that the store takes; got a/b:c"),
        ((trial, "name", "--alias", "v1"), "the registered model must be one that the store takes; got name as v1"),
        (
            (trial, "name", "--tracking-uri", "http://127.0.0.1:1"),
            "--tracking-uri must be a store that takes the trial",
        ),
    ):
        assert main(["promote", *words, "--out", str(out)]) == 2, words
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"engram: {said}"), line


def test_a_run_that_was_deleted_is_not_promoted(ready, capsys):
    out, trial = ready
    assert main(["sync", "--out", str(out)]) == 0
    client = client_of(out)
    (experiment,) = client.search_experiments(filter_string="name = 'engram'")
    (run,) = client.search_runs([experiment.experiment_id])
    client.delete_run(run.info.run_id)
    capsys.readouterr()
    assert main(["promote", trial, "name", "--out", str(out)]) == 2
    assert "TRIAL must be one whose run is in MLflow" in capsys.readouterr().err


@pytest.fixture
def registered(ready, capsys):
    """Where a trial lies, its id, and the store in which its network is ``digits-mlp``, version 1, champion."""
    out, trial = ready
    assert main(["promote", trial, "digits-mlp", "--alias", "champion", "--out", str(out)]) == 0
    capsys.readouterr()
    return out, trial, uri_of(out / "mlflow.db")


def test_a_trial_begins_with_a_registered_network(registered, capsys, tmp_path):
    """It is the trial that it would be with the other one's folder, wherever that lies, and needs that no more."""
    out, trial, store = registered
    expected = None
    for text, where in ((trial, out), ("models:/digits-mlp/1", out), ("models:/digits-mlp@champion", tmp_path / "new")):
        words = ("--from", text, "--out", str(where), "--tracking-uri", store, "--dry-run", "--json")
        assert main(["run", "backbone.evaluate", *words]) == 0
        planned = json.loads(capsys.readouterr().out)["trials"]
        expected = expected or planned
        assert planned == expected and not (where / "models").exists()
    how = RunSetting(out=tmp_path / "new", data_root=tmp_path, argv=[], tracking_uri=store)

    def plan():
        return planner_for(Registry.discover(), how).add("backbone.evaluate", {"from_trial": "models:/digits-mlp/1"})

    planned = plan()
    assert planned.id == expected[0]["trial"] and planned.inputs == {"trained": trial}
    place = Path(planned.paths["trained"])
    assert place.parents[1] == tmp_path / "new" / "models" and Record(place).status == "done"
    images = torch.rand(4, *engram.load(place).made.in_shape)
    assert torch.equal(engram.load(place).predict(images), engram.load(out / "trials" / trial).predict(images))
    fetched = (place / "config.json").stat().st_mtime_ns
    assert plan().paths == planned.paths and (place / "config.json").stat().st_mtime_ns == fetched  # once
    assert [path.name for path in place.parent.iterdir()] == [trial]


def test_registered_networks_that_no_trial_begins_with(registered, capsys, tmp_path):
    out, trial, store = registered
    client, new = client_of(out), tmp_path / "new"
    client.create_registered_model("theirs")
    client.create_model_version("theirs", "file:///nowhere")
    (run,) = (each.run_id for each in client.search_model_versions("name = 'digits-mlp'"))
    leading_out = {"engram.trial": "../../out", "engram.sha256": "0"}  # out of the folder for what is fetched
    client.create_model_version("theirs", "file:///nowhere", run, tags=leading_out)

    def refused(text, *more):
        assert main(["run", "backbone.evaluate", "--from", text, "--out", str(new), *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert not list(new.glob("trials/*")) and not list(new.glob("models/*/*"))
        return line.removeprefix("engram: --from must be ")

    told = ("--tracking-uri", store)
    assert refused("models:/digits-mlp", *told).startswith("models:/NAME/VERSION or models:/NAME@ALIAS; got ")
    for text in ("models:/digits/1", "models:/digits-mlp/7", "models:/digits-mlp@best"):
        assert refused(text, *told).startswith(f"a registered model that can be fetched; got {text} in sqlite:")
    for text in ("models:/theirs/1", "models:/theirs/2"):
        assert refused(text, *told).startswith(f"a model that engram promote registered; got {text}")
    assert refused("models:/digits-mlp/1").startswith("in a store that exists; got ")
    assert "refused" in refused("models:/digits-mlp/1", "--tracking-uri", "http://127.0.0.1:1")
    (weights,) = (out / "mlartifacts").rglob("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    said = refused("models:/digits-mlp/1", *told)
    assert said.startswith(f"the files that trial {trial} was finished with; got others in run ")
    weights.unlink()
    assert refused("models:/digits-mlp/1", *told).startswith("a registered model that can be fetched; got ")
    (result,) = (out / "mlartifacts").rglob("result.json")
    said = json.loads(result.read_text())
    said.pop("sha256")
    result.write_text(json.dumps({**said, "artifacts": {"model": "../../model"}}))
    assert "(leads out of its folder: ../../model)" in refused("models:/digits-mlp/1", *told)
