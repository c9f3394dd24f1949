"""Trials from Python and from the command line are the same ones."""

import os

import pytest
import torch

import engram as face
from engram.backbone.data.load import load as load_data

OPTIONS = {"backbone": "mlp", "epochs": 1}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def trial(out, tmp_path_factory):
    return face.train("mlp", "digits", epochs=1, out=out, device="cpu")


def test_a_trial_from_python_is_one_of_the_command_line(trial, out, engram):
    again = engram(
        "run", "backbone.train", "--backbone", "mlp", "--epochs", 1, "--json", "--out", out, "--device", "cpu"
    )
    assert again.json["trial"] == trial.id and again.json["metrics"] == trial.metrics
    assert trial.folder == out.resolve() / "trials" / trial.id
    assert trial.options["epochs"] == 1 and trial.experiment == "backbone.train"
    assert dict(zip(trial.to_dataframe()["metric"], trial.to_dataframe()["value"], strict=True)) == trial.metrics
    assert trial.id in trial._repr_html_()


def test_a_sweep_takes_up_what_is_done(trial, out):
    suite = {"name": "widths", "experiment": "backbone.train", "options": OPTIONS}
    suite["grid"] = {"backbone.width": [0.5, 1.0]}
    swept = face.sweep(suite, out=out, device="cpu")
    assert [each.options["backbone.width"] for each in swept.trials] == [0.5, 1.0]
    assert swept.trials[1] == trial
    assert list(swept.to_dataframe()["trial"]) == [each.id for each in swept.trials]
    compared = swept.compare(metric="test/accuracy")
    assert {row["mean"] for row in compared.groups} == {each.metrics["test/accuracy"] for each in swept.trials}
    assert len(compared.to_dataframe()) == 2 and len(compared.differences) == 1
    assert "test/accuracy" in compared._repr_html_() and "test/accuracy" in str(compared)


def test_a_search_is_a_sweep_of_those_that_are_done(trial, out):
    search = {"method": "random", "objective": "validation/accuracy", "trials": 2}
    search["space"] = {"backbone.width": [0.5, 1.0]}
    suite = {"name": "search", "experiment": "backbone.train", "options": OPTIONS, "search": search}
    swept = face.sweep(suite, out=out, device="cpu")
    assert {each.options["backbone.width"] for each in swept.trials} == {0.5, 1.0} and trial in swept.trials
    assert "validation/accuracy" in str(swept.compare())
    suite["name"], suite["search"] = "halved", search | {"method": "halving", "factor": 2, "rungs": 1}
    again = face.sweep(suite, out=out, device="cpu")  # all are done, so that nothing is left to be given up
    assert again.trials == swept.trials


def test_a_loaded_network_answers_as_in_its_trial(trial, out, tmp_path):
    data = load_data("digits", {}, root=tmp_path)
    trained = face.load(trial.id[:9], out=out)
    assert trained.accuracy(data.test.images, data.test.labels) == trial.metrics["test/accuracy"]
    batches = list(zip(data.test.images.split(100), data.test.labels.split(100), strict=True))
    assert trained.accuracy(batches) == trial.metrics["test/accuracy"]
    assert torch.equal(trained.predict(data.test.images), trained.module(data.test.images).argmax(1))
    assert trained.classes == data.classes and trained.made.backbone.name == "mlp"
    assert "mlp" in trained._repr_html_() and "backbone" in list(trained.to_dataframe()["part"])
    assert face.load(trial.folder / "model").made == face.load(trial.folder).made == trial.load().made
    spiking = face.convert(trained.module, data.train.images[:100], steps=4)
    assert len(spiking.accuracy(data.test.images[:50], data.test.labels[:50])) == 3
    with pytest.raises(face.UserError, match="images must be of 1x8x8"):
        trained.predict(torch.zeros(1, 3, 8, 8))


def test_errors_are_those_of_the_command_line(trial, out):
    for call, said in (
        (
            lambda: face.run("backbone.train", lr=-1, epochs=-1, out=out),
            "epochs must be .*; got -1.*\nlr must be",
        ),
        (lambda: face.run("backbone.trian", out=out), "experiment must be a registered name; got 'backbone.trian'"),
        (lambda: face.train("mlp", "digits", device="tpu", out=out), "device must be .*; got tpu"),
        (
            lambda: face.train("mlp", "digits", devices=0, retries=-1, out=out),
            "devices must be .*; got 0.*\nretries must",
        ),
        (
            lambda: face.run("backbone.train", memory="much", time="long", out=out),
            "--memory must be .*; got much.*\n--time must",
        ),
        (lambda: face.sweep({"name": "none"}, memory="much", out=out), "--memory must be .*; got much"),
        (lambda: face.run("snn.convert", from_trial=trial, epochs=3, out=out), "epochs must be left out beside --from"),
        (lambda: face.sweep({"experiment": "backbone.train"}, out=out), "a suite must be given with a name"),
        (lambda: face.sweep("none.toml", out=out), "suite must be a TOML file; got none.toml"),
        (lambda: face.train("mlp", "folder:/nowhere", out=out), "/nowhere"),
        (lambda: trial.plot("none"), "the name of a figure must be one of the trial's"),
    ):
        with pytest.raises(face.UserError, match=said):
            call()


@pytest.mark.usefixtures("with_plugins")
def test_a_trial_that_fails_raises(out, site, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(site), os.environ.get("PYTHONPATH", ""))))  # of its worker
    with pytest.raises(face.TrialError, match="loss must be finite"):
        face.run("counting.count", fail="trial", out=out)
