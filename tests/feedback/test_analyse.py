"""``feedback.analyse``: what a trial of it reports, and that it goes on where it was."""

import math
from dataclasses import replace

import pytest
import torch

from engram.backbone.data.columns import INDEX
from engram.backbone.data.load import load
from engram.backbone.data.trained import load_as_trained
from engram.backbone.nets.making import LINEAR, build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.model import save_model
from engram.backbone.testing.workshop import Told
from engram.feedback.analysing import experiment
from engram.feedback.analysing.configs import AnalyseConfig
from engram.feedback.analysing.experiment import Analyse

CONFIG = AnalyseConfig(from_trial="x", images=32, training_images=24, corruptions=("gaussian-noise", "cutout"))


@pytest.fixture(scope="module")
def trial(tmp_path_factory, made_of):
    """The folder of a trial with a network of the digits whose feedback does something."""
    folder, data = tmp_path_factory.mktemp("trial"), load("digits", {}, root=tmp_path_factory.getbasetemp())
    adapter = in_full(Registry.discover(), "adapters", "feedback.gated", {"steps": 3, "connections": "layer3>layer1"})
    torch.manual_seed(0)
    model = build("vgg-tiny", {}, data.in_shape, 10, data.mean, data.std, adapters=[adapter]).eval()
    model.backbone.paths[0].conv.weight.data = torch.randn(model.backbone.paths[0].conv.weight.shape)
    save_model(folder / "model", model, made_of("vgg-tiny", {}, data, adapters=(adapter,), head=LINEAR))
    return folder


def run(trial, folder, config=CONFIG, stop=None, saved=None):
    work = Analyse(config, Told(folder, folder, {"trained": trial}))
    state = work.start()
    if saved is not None:
        work.load_state_dict(state, saved)
    for _ in range(10**6 if stop is None else stop):
        if not work.step(state):
            break
    return work.state_dict(state) if stop is not None else work.finish(state)


@pytest.fixture(scope="module")
def whole(trial, tmp_path_factory):
    return run(trial, tmp_path_factory.mktemp("whole"))


def test_it_reports_what_it_declares(whole):
    assert set(whole.metrics) == {metric.name for metric in AnalyseConfig.metrics}
    assert all(math.isfinite(value) for value in whole.metrics.values())
    (row,) = (
        row
        for row in whole.tables["ablation"]
        if (row["carries"], row["in step"], row["pictures"]) == ("nothing", "all", "corrupted")
    )
    assert whole.metrics["test/corrupt_drop_without"] == row["points_lost"]
    assert whole.metrics["test/corrupt_drop_without/ci95"] == pytest.approx((row["to"] - row["from"]) / 2)
    assert whole.metrics["test/clean/accuracy"] == whole.tables["accuracy_vs_steps"][2]["clean"]
    assert set(whole.tables) == {"accuracy_vs_steps", "ablation", "alignment", "convergence", "decoding"}
    grid = whole.figures["ablation_corrupted"]
    assert grid.rows == ["3>1"] and grid.columns == ["2", "3", "all", "exchanged"]
    assert grid.values[0][2] == row["points_lost"]
    for name in ("stage_maps", "path_maps"):
        assert len(whole.figures[name].pictures) == len(whole.figures[name].captions) == 8
    assert len(whole.tables["alignment"]) == 2 * 2 * 4 * 3 and len(whole.tables["convergence"]) == 2 * 3 * 4 * 2


@pytest.mark.parametrize("stop", [1, 6])
def test_it_goes_on_where_it_was(trial, whole, tmp_path, stop):
    saved = run(trial, tmp_path, stop=stop)
    assert saved["done"] == stop
    again = run(trial, tmp_path, saved=saved)
    assert again.metrics == whole.metrics and again.tables == whole.tables


def test_accuracy_is_that_of_the_network_on_the_very_pictures(trial, whole, tmp_path):
    work = Analyse(CONFIG, Told(tmp_path, tmp_path, {"trained": trial}))
    state = work.start()
    with torch.no_grad():
        for name, split in state.test.items():
            ((images, labels, _),) = split.batches(torch.arange(32), 32, "cpu")
            share = float((state.inside.model(images).argmax(1) == labels).float().mean())
            assert whole.tables["accuracy_vs_steps"][2][name] == pytest.approx(share)
    assert not torch.equal(state.train.labels, state.test["clean"].labels)


def test_neighbours_are_of_any_class_in_a_set_that_is_sorted_by_class(trial, tmp_path, monkeypatch):
    """They exchange what connections carry."""

    def by_class(made, _dataset, _options, **where):
        data, outputs = load_as_trained(made, **where)
        parts = {name: getattr(data, name) for name in ("train", "test")}
        return replace(data, **{name: part.select(part.labels.argsort()) for name, part in parts.items()}), outputs

    monkeypatch.setattr(experiment, "load_to_look_at", by_class)
    config = replace(CONFIG, images=100, training_images=100)
    first, again, other = (
        Analyse(replace(config, seed=seed), Told(tmp_path, tmp_path, {"trained": trial})).start() for seed in (0, 0, 1)
    )
    for labels in (first.labels, first.train.labels):
        assert float((labels == labels.roll(1)).float().mean()) < 0.25
        assert len(labels[-25:].unique()) > 5  # which choose the penalty of decoders
    places = [state.test["clean"].columns[INDEX] for state in (first, again, other)]
    assert torch.equal(places[0], places[1]) and not torch.equal(places[0].sort().values, places[2].sort().values)
    assert all(torch.equal(split.labels, first.test["clean"].labels) for split in first.test.values())


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "--from must be a trained trial; got nothing"),
        ({"from_trial": "x", "corruptions": ()}, "--corruptions must be at least one; got none"),
        ({"from_trial": "x", "corruptions": ("jpeg", "jpeg")}, "--corruptions must be named once each; got jpeg,jpeg"),
    ],
)
def test_what_cannot_be_is_said_at_once(given, problem):
    (found,) = AnalyseConfig(**given).problems()
    assert found.startswith(problem)
