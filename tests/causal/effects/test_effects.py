"""``causal.effects``: what a trial of it reports, and that it goes on where it was."""

import math
from dataclasses import replace

import pytest
import torch

from engram.backbone.data.load import load
from engram.backbone.data.trained import reference
from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import LINEAR, build
from engram.backbone.saved.model import save_model
from engram.backbone.testing.workshop import Told
from engram.causal.effects.configs import EffectsConfig
from engram.causal.effects.experiment import EffectsExperiment
from engram.causal.effects.network import stage_means

CONFIG = EffectsConfig(from_trial="x", images=66, cells=0, top=1, set_to=("resample", "mean"))


@pytest.fixture(scope="module")
def trial(tmp_path_factory, made_of):
    """The folder of a trial with a network of digits before backgrounds, which says where the digits are."""
    folder, root = tmp_path_factory.mktemp("trial"), tmp_path_factory.getbasetemp()
    shown = ("biased:digits", {"bias": "background"})
    data = load(*shown, root=root)
    torch.manual_seed(0)
    model = build("vgg-tiny", {"width": 0.25}, data.in_shape, len(data.classes), data.mean, data.std).eval()
    made = made_of("vgg-tiny", {"width": 0.25}, data, head=LINEAR)
    save_model(folder / "model", model, replace(made, data=reference(*shown, data, 0.1)))
    return folder


def run(trial, folder, config=CONFIG, stop=None, saved=None):
    work = EffectsExperiment(config, Told(folder, folder, {"trained": trial}))
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
    assert set(whole.metrics) <= {metric.name for metric in EffectsConfig.metrics}
    assert all(math.isfinite(value) for value in whole.metrics.values())
    assert {"stages", "effects", "refuters", "paths", "surroundings"} <= set(whole.tables)
    rows = [row for row in whole.tables["effects"] if row["set to"] == "resample"]
    channels = [row for row in rows if row["channel"] is not None]
    assert len(channels) == 4 + 8 + 16
    largest = max((row["probability"] for row in channels), key=abs)
    assert whole.metrics["test/largest_effect"] == largest
    assert all(row["from"] <= row["probability"] <= row["to"] for row in rows)
    assert {0 < row["p"] <= 1 for row in whole.tables["refuters"]} == {True}
    assert len(whole.tables["refuters"]) == 3 * 4


def test_past_a_whole_later_stage_of_a_row_of_stages_there_is_no_direct_effect(whole):
    for row in whole.tables["paths"]:
        assert row["direct"] + row["indirect"] == pytest.approx(row["total"], abs=1e-12)
        if row["past channel"] == "all":
            assert row["direct"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("stop", [pytest.param(3, marks=pytest.mark.slow), 7])
def test_it_goes_on_where_it_was(trial, whole, tmp_path, stop):
    saved = run(trial, tmp_path, stop=stop)
    assert saved["done"] == stop
    again = run(trial, tmp_path, saved=saved)
    assert again.metrics == whole.metrics and again.tables == whole.tables


def test_what_cannot_be_is_named():
    wrong = EffectsConfig(set_to=("mean", "mean"))
    said = " ".join(wrong.problems())
    assert "--from must be a trained trial" in said and "--set-to must be named once each" in said
    assert "--set-to must be at least one" in " ".join(replace(CONFIG, set_to=()).problems())


def test_a_network_without_stages_is_refused():
    class Bare(torch.nn.Module):
        in_shape = (3, 8, 8)

        def forward(self, x):
            return x.flatten(1)

    model = Classifier(Bare(), torch.nn.Linear(192, 2), torch.zeros(3), torch.ones(3))
    with pytest.raises(UserError, match="must be in stages"):
        stage_means(model, torch.rand(2, 3, 8, 8))
