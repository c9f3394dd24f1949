"""What is reported of networks on spoiled pictures, against what they answer when asked directly."""

import math

import pytest
import torch

from engram.backbone.data.columns import INDEX
from engram.backbone.data.corruptions.applying import corrupt
from engram.backbone.data.trained import load_as_trained
from engram.backbone.errors import UserError
from engram.backbone.measures.scoring import score
from engram.backbone.registry import Registry
from engram.backbone.saved.model import load_model
from engram.backbone.testing.experiments import reports, resumes
from engram.backbone.testing.workshop import Workshop
from engram.feedback.robustness.marks import CLEAN, Condition, Marks
from engram.feedback.robustness.metrics import METRICS

SMALL = {"kinds": ("jpeg", "bars"), "severities": (1, 5)}
TRAINED = {"backbone": "vgg-tiny", "backbone_options": {"width": 0.5}, "epochs": 3, "batch_size": 120}


@pytest.fixture(scope="module")
def shop():
    return Workshop(Registry.discover(), {"feedback.robustness": SMALL})


@pytest.fixture(scope="module")
def ran(shop):
    """A small network with feedback beside its controls."""
    return shop.run("feedback.robustness", **TRAINED, adapter=("feedback.gated",), steps=3, attacked=1)


@pytest.fixture(scope="module")
def pictures(shop, ran):
    """The test pictures, and under which condition each accuracy is counted on what."""
    _, made = load_model(ran.services.inputs["network"] / "model")
    data, _ = load_as_trained(made, root=shop.folder, download=False)
    images, labels, _ = next(iter(data.test.batches(torch.arange(len(data.test)), 10_000, "cpu")))
    places = data.test.columns[INDEX]
    spoiled = {(kind, s): corrupt(images, places, kind, s) for kind in SMALL["kinds"] for s in SMALL["severities"]}
    return data, labels, {CLEAN: images, **spoiled}


def share(model, images, labels):
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).double().mean())


@pytest.mark.parametrize("role", ["network", "parameter_matched", "flop_matched"])
def test_accuracies_are_those_of_the_saved_networks_on_the_same_pictures(ran, pictures, role):
    data, labels, shown = pictures
    model, _ = load_model(ran.services.inputs[role] / "model")
    beginning = "" if role == "network" else f"{role}/"
    metrics = ran.result.metrics
    assert metrics[f"{beginning}test/clean/accuracy"] == pytest.approx(score(model, data.test, "cpu")["accuracy"])
    by_hand = {condition: share(model.eval(), images, labels) for condition, images in shown.items()}
    corrupt_ones = [value for condition, value in by_hand.items() if condition != CLEAN]
    assert metrics[f"{beginning}test/corrupt/accuracy"] == pytest.approx(sum(corrupt_ones) / 4)
    column = {"network": "the network", "parameter_matched": "control, same parameters"}.get(role)
    for row in ran.result.tables["corruptions"] if column else ():
        assert row[column] == pytest.approx(by_hand[row["pictures"], row["severity"]])


def test_one_step_is_the_network_on_a_single_frame(ran, pictures):
    _, labels, shown = pictures
    model, _ = load_model(ran.services.inputs["network"] / "model")
    by_hand = [share(model.eval(), images[:, None], labels) for images in shown.values()]
    metrics = ran.result.metrics
    assert metrics["one_step/test/clean/accuracy"] == pytest.approx(by_hand[0])
    assert metrics["one_step/test/corrupt/accuracy"] == pytest.approx(sum(by_hand[1:]) / 4)
    steps = ran.result.tables["steps"]
    assert [row["steps"] for row in steps] == [1, 2, 3]
    assert steps[0]["all corruptions"] == pytest.approx(metrics["one_step/test/corrupt/accuracy"])
    assert steps[-1]["clean"] == pytest.approx(metrics["test/clean/accuracy"])
    assert metrics["one_step/flops_per_image"] < metrics["flops_per_image"] < 3 * metrics["one_step/flops_per_image"]


def test_a_gain_is_the_difference_in_points(ran):
    metrics = ran.result.metrics
    for other, gain in (("one_step", "one_step"), ("parameter_matched", "parameters"), ("flop_matched", "flops")):
        apart = metrics["test/corrupt/accuracy"] - metrics[f"{other}/test/corrupt/accuracy"]
        assert metrics[f"test/gain/{gain}"] == pytest.approx(100 * apart, abs=1e-4)
        assert metrics[f"test/gain/{gain}/ci95"] >= 0
    assert {metric.name for metric in METRICS if metric.name.startswith("test/")} <= set(metrics)
    rows = [row for row in ran.result.tables["gains"] if row["over"] == "control, same operations"]
    kinds = [row["gain"] for row in rows if row["pictures"] in SMALL["kinds"]]
    assert sum(kinds) / 2 == pytest.approx(metrics["test/gain/flops"], abs=1e-4)


def test_sizes_stand_beside_those_of_the_network(ran):
    rows = {row["network"]: row for row in ran.result.tables["networks"]}
    assert rows["the network"]["parameters (%)"] == rows["the network"]["flops (%)"] == 100
    assert abs(rows["control, same parameters"]["parameters (%)"] - 100) < 25
    assert abs(rows["control, same operations"]["flops (%)"] - 100) < 25
    assert rows["itself at one step"]["flops (%)"] < 60
    for name, of in (("control, same parameters", "parameters (%)"), ("control, same operations", "flops (%)")):
        assert rows[name]["mismatch (%)"] == pytest.approx(rows[name][of] - 100)
    assert rows["the network"]["mismatch (%)"] is rows["itself at one step"]["mismatch (%)"] is None


def test_nothing_is_better_under_attack_than_under_the_hardest_one(ran):
    rows = ran.result.tables["attacks"]
    for name in {row["network"] for row in rows}:
        mine = {row["attack"]: row["accuracy"] for row in rows if row["network"] == name}
        assert mine["all"] <= min(mine.values())
        assert len(mine) == 4  # as many tries for each
        several = {"the network", "itself at one step"}
        assert ("pgd at the first step" in mine) == (name in several)
    assert {row["images"] for row in rows} == {1}


def test_it_is_reported_in_plain_values_and_resumes_to_the_last_bit(shop, ran):
    reports(ran)
    resumes(shop, ran)
    assert {"severity", "kinds", "steps", "gains", "cost"} == set(ran.result.figures)


def test_the_pictures_are_the_same_for_any_network_and_number_of_trials(shop, ran):
    trained = str(ran.services.inputs["network"])
    few = [shop.run("feedback.robustness", **{"from": trained}, images=10, controls="none", seed=s) for s in (0, 1)]
    assert few[0].result.metrics == few[1].result.metrics
    assert few[0].result.metrics["images"] == 10
    held = shop.run("feedback.robustness", **{"from": trained}, split="validation", controls="none")
    assert "validation/corrupt/accuracy" in held.result.metrics and "test/corrupt/accuracy" not in held.result.metrics


@pytest.mark.parametrize(("experiment", "adapter"), [("backbone.train", ()), ("snn.train", ()), ("snn.convert", ())])
def test_networks_without_feedback_are_scored_too(shop, experiment, adapter):
    trained = shop.run(experiment, **TRAINED, adapter=adapter)
    ran = shop.run("feedback.robustness", **{"from": str(trained.folder)})
    metrics = ran.result.metrics
    own = "snn/test/accuracy" if experiment == "snn.convert" else "test/accuracy"
    assert metrics["test/clean/accuracy"] == pytest.approx(trained.result.metrics[own])
    assert "test/gain/parameters" not in metrics
    assert ("test/gain/one_step" in metrics) == (experiment != "backbone.train")
    assert math.isfinite(metrics["flops_per_image"])


def test_there_must_be_images_of_the_split(shop):
    with pytest.raises(UserError, match="one with images of the validation split; got none"):
        shop.run("feedback.robustness", **{**TRAINED, "epochs": 1}, validation=0.0, split="validation")


def test_rows_of_marks():
    marks = Marks.empty(("bars", "jpeg"), (1, 3), {"network": (1, 2), "flop_matched": (1,)}, 0, 4)
    assert marks.conditions == (CLEAN, Condition("bars", 1), Condition("bars", 3), ("jpeg", 1), ("jpeg", 3))
    assert (marks.rows(), marks.rows("jpeg"), marks.rows(severity=3)) == ([1, 2, 3, 4], [3, 4], [2, 4])
    assert marks.networks == ["network", "one_step", "flop_matched"]
    marks.right["network"][0, 0, 1] = True
    assert marks.final("one_step")[0].tolist() == [False, True, False, False]
    assert not marks.final("network").any()
