"""The width of a control against a search of all widths, and what a plan of a comparison holds."""

import math

import pytest

from engram.backbone.data.load import load
from engram.backbone.errors import UserError
from engram.backbone.measures.flops import parameter_count
from engram.backbone.options import Checker, in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.model import load_model
from engram.backbone.testing.workshop import Workshop
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.records.identity import DataSets
from engram.feedback.robustness.control_configs import without_width
from engram.feedback.robustness.matching import GRID, Size, at_width, find_width, size_of

GATED = {"adapter": "feedback.gated", "steps": 3}


def stairs(width):
    """Three layers whose channels are whole numbers."""
    channels = [max(1, round(base * width)) for base in (5, 9, 14)]
    return Size(10 * channels[0] + channels[0] * channels[1] + channels[1] * channels[2], float(sum(channels)))


@pytest.mark.parametrize("match", ["parameters", "flops"])
@pytest.mark.parametrize("wanted", [30, 221, 222, 1_000, 12_345])
def test_the_closest_width_is_that_of_a_search_of_all(match, wanted):
    wanted = wanted if match == "parameters" else wanted / 10
    found = find_width(match, Size(round(wanted), wanted), stairs)
    target = found.wanted.of(match)
    every = [stairs(places / GRID).of(match) for places in range(1, 64 * GRID + 1)]
    assert abs(stairs(found.width).of(match) - target) == min(abs(each - target) for each in every)
    assert found.above[1].of(match) == min(each for each in every if each >= target)
    below = [each for each in every if each < target]
    assert (found.below and found.below[1].of(match)) == (max(below) if below else None)
    (chosen,) = [row for row in found.rows() if row["chosen"]]
    assert chosen["mismatch (%)"] == pytest.approx(100 * (stairs(found.width).of(match) / target - 1))


def test_a_size_that_no_width_reaches_is_refused():
    with pytest.raises(UserError, match=r"one that a --backbone\.width up to 64 can match; got 1,000,000"):
        find_width("parameters", Size(10**6, 1.0), lambda width: Size(5, 1.0))


def test_vgg_tiny_with_feedback_by_hand(tmp_path):
    data = load("digits", {}, root=tmp_path, validation=0.0)
    gated = in_full(Registry.discover(), "adapters", "feedback.gated", {"steps": 4})
    plain, wrapped = (size_of("vgg-tiny", {}, each, data, None) for each in ([], [gated]))
    second, third = 2 * 144 * 32 * 16, 2 * 288 * 64 * 4  # 8x8 pixels, then 4x4, then 2x2
    assert plain.flops == 2 * 9 * 16 * 64 + second + third + 2 * 64 * 10
    paths = 2 * 64 * (16 + 32)  # of 1x1 pixels: the last stage's output is brought to more of them afterwards
    assert wrapped.flops == plain.flops + 3 * (second + third + paths)  # the first stage runs once, the head once


def test_what_stops_when_it_has_settled_is_matched_in_all_its_steps(tmp_path):
    data = load("digits", {}, root=tmp_path, validation=0.0)
    kinds = {"feedback.gated": {"steps": 6}, "feedback.equilibrium": {"steps": 6, "solver": "iteration"}}
    every = [in_full(Registry.discover(), "adapters", name, options) for name, options in kinds.items()]
    gated, equilibrium = (size_of("vgg-tiny", {}, [each], data, None) for each in every)
    assert equilibrium.flops == gated.flops  # a fresh one, which settles at once, runs three of them


def test_a_width_takes_the_place_of_what_says_the_size_otherwise(tmp_path):
    data = load("digits", {}, root=tmp_path, validation=0.0)
    sizes = [size_of("mlp", at_width({"units": 12, "depth": 1}, width), [], data, None) for width in (0.25, 0.5)]
    assert [size.parameters for size in sizes] == [64 * n + n + 10 * n + 10 for n in (64, 128)]


@pytest.fixture
def planned(tmp_path):
    """``planned(**options)``: the trial and its planner."""
    registry = Registry.discover()
    planner = Planner(registry, tmp_path, DataSets(registry, tmp_path))

    def plan(experiment="feedback.robustness", **options):
        checker = Checker(registry, lambda name: f"--{name}", "")
        given = checker.check(registry.options("experiments", experiment), options)
        checker.require()
        return planner.add(experiment, given)

    plan.trials = planner.trials
    return plan


def test_controls_are_planned_beside_the_network_and_shared(planned):
    trial = planned(**GATED)
    assert sorted(trial.inputs) == ["flop_matched", "network", "parameter_matched"]
    parts = {role: planned.trials[name] for role, name in trial.inputs.items()}
    alike = ("epochs", "lr", "batch_size", "seed", "dataset", "validation", "adapter_options", "backbone")
    assert all(part.config[key] == trial.config[key] for part in parts.values() for key in alike)
    assert [parts[role].config["match"] for role in ("parameter_matched", "flop_matched")] == ["parameters", "flops"]
    again = planned(**GATED, severities=[5], attacked=3)
    assert again.inputs == trial.inputs and again.id != trial.id
    assert planned(**GATED, connections="layer3>layer2").inputs != trial.inputs
    spelled = planned(adapter="feedback.gated", **{"adapter.steps": 3})
    assert spelled.id == trial.id
    assert "flop_matched" not in planned(**GATED, controls="parameters").inputs


@pytest.mark.parametrize("given", [False, True])
def test_a_network_that_is_trained_on_has_controls_that_are_trained_on(planned, given):
    if given:
        first = planned("backbone.train", backbone="vgg-tiny", epochs=7, lr=0.01, seed=5)
        trials = [planned(**{"from": first.id}, **GATED, tune=2, seed=seed) for seed in (0, 1)]
    else:
        more = {"backbone": "vgg-tiny", "epochs": 7, "lr": 0.01, "train_seed": 5}
        trials = [planned(**more, **GATED, tune=2, seed=seed) for seed in (0, 1)]
    before = set()
    for seed, trial in enumerate(trials):
        for role in ("network", "parameter_matched", "flop_matched"):
            tuned = planned.trials[trial.inputs[role]]
            assert (tuned.config["epochs"], tuned.config["seed"]) == (2, seed)
            assert tuned.config["lr"] == pytest.approx(0.002)
            trained = planned.trials[tuned.config["from"]]
            assert (trained.config["epochs"], trained.config["lr"], trained.config["seed"]) == (7, 0.01, 5)
            assert trained.experiment == ("backbone.train" if role == "network" else "feedback.control")
            assert role != "network" or (trained.config["adapter"], tuned.config["adapter"]) == ([], ["feedback.gated"])
            before.add(trained.id)
    assert len(before) == 3  # one for each role, whatever the seed of what comes after


def test_controls_are_left_out_where_no_fair_one_can_be_made(planned):
    assert planned().config["controls"] == "none"
    trained = planned("backbone.train", adapter="feedback.gated", backbone="vgg-tiny")
    assert planned(**{"from": trained.id}).config["controls"] == "both"
    later = planned("backbone.train", **{"from": trained.id, "epochs": 1})
    assert planned(**{"from": later.id}).config["controls"] == "none"
    with pytest.raises(UserError, match="goes on from another one: give that one, with --adapter and --tune"):
        planned(**{"from": later.id, "controls": "flops"})
    assert planned(**{"from": planned("snn.convert").id}).config["controls"] == "none"
    taught = planned("backbone.train", adapter="feedback.gated", backbone="vgg-tiny", teacher=trained.id)
    assert planned(**{"from": taught.id}).config["controls"] == "none"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"steps": 3}, "--steps must be left out without an adapter that has steps; got 3"),
        ({**GATED, "adapter.steps": 4}, "--steps must be what the adapter's own option says; got 3"),
        ({"tune": 2}, "--tune must be left out without an adapter that adds feedback"),
        ({**GATED, "train_seed": 1}, "--train-seed must be left out without --tune"),
        ({"kinds": ["bars", "bars"]}, "--kinds must be at least one, each named once; got bars, bars"),
        ({"severities": [6]}, "should be 1, 2, 3, 4 or 5"),
        ({"controls": "both"}, "--controls must be none here; got both. The network has no feedback"),
        ({**GATED, "connections": "layer1>layer3"}, "forward"),
        ({"from": "trained", "epochs": 3}, "--epochs must be left out beside --from"),
        ({"from": "trained", "adapter": "feedback.gated"}, "--adapter must be left out beside --from"),
        ({"from": "trained", "tune": 1}, "--tune must be beside --from given with a feedback adapter alone"),
        ({"from": "trained", "tune": 1, "adapter": "snn.qcfs"}, "with a feedback adapter alone"),
        ({"from": "trained", "train_seed": 1}, "--train-seed must be left out beside --from"),
    ],
)
def test_what_cannot_be_is_refused_while_it_is_planned(planned, options, complaint):
    options = {**options, "from": planned("backbone.train").id} if "from" in options else options
    with pytest.raises(UserError, match=complaint.replace("(", r"\(")):
        planned(**options)


def test_a_network_without_a_width_is_told_what_it_lacks(tmp_path):
    assert not without_width("resnet18")
    (tmp_path / "mine.py").write_text("class Net: pass")
    (complaint,) = without_width(f"{tmp_path}/mine.py:Net")
    assert "one whose options have a width, so that a control of the same size can be made; got " in complaint


def test_a_control_is_trained_on_at_the_width_it_was_found():
    shop = Workshop(Registry.discover(), {"feedback.robustness": {"kinds": ("bars",), "severities": (3,)}})
    network = {"backbone": "vgg-tiny", "backbone_options": {"width": 0.5}}
    ran = shop.run("feedback.robustness", **network, **GATED, tune=1, batch_size=120)
    models = {role: load_model(folder / "model") for role, folder in ran.services.inputs.items()}
    wanted = parameter_count(models["network"][0])
    control, made = models["parameter_matched"]
    assert abs(parameter_count(control) / wanted - 1) < 0.1 and made.backbone.options["width"] != 0.5
    assert not made.adapters and [each.name for each in models["network"][1].adapters] == ["feedback.gated"]
    metrics = ran.result.metrics
    assert abs(metrics["flop_matched/flops_per_image"] / metrics["flops_per_image"] - 1) < 0.2
    assert metrics["parameter_matched/parameters"] == parameter_count(control)
    assert math.isfinite(metrics["test/gain/flops"])


def test_the_control_of_one_that_settles_computes_no_less_than_it_ever_does():
    shop = Workshop(Registry.discover(), {"feedback.robustness": {"kinds": ("bars",), "severities": (3,)}})
    network = {"backbone": "vgg-tiny", "backbone_options": {"width": 0.5}, "controls": "flops"}
    settles = {"adapter": "feedback.equilibrium", "adapter_options": {"steps": 12, "tolerance": 0.1}}
    ran = shop.run("feedback.robustness", **network, **settles, epochs=1, batch_size=240, images=20)
    metrics = ran.result.metrics
    row = {each["network"]: each for each in ran.result.tables["networks"]}["control, same operations"]
    assert abs(row["mismatch (%)"]) < 20
    assert row["flops (%)"] > 250  # what it really does is counted: it settles after a few of its 12 steps
    assert metrics["flop_matched/flops_per_image"] > 2.5 * metrics["flops_per_image"]
