"""Every claim names a comparison that can be planned, with the controls that it is about."""

import shlex

import pytest

from engram.backbone.measures.intervals import interval
from engram.backbone.registry import Registry
from engram.benchmarks.commands.command import read_experiment
from engram.benchmarks.commands.flags import Planning
from engram.benchmarks.commands.reproduce import _words, judged, options_of
from engram.benchmarks.planning.config import experiment_config
from engram.feedback.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_its_options_are_valid(target):
    registry = Registry.discover()
    given = options_of(target, 0, registry)
    cls = experiment_config(registry, target.experiment)
    config = cls.resolve(given)
    shown = ["--seed", "0", *shlex.split(_words(target))]
    assert read_experiment(target.experiment, shown, Planning, registry)[1] == given  # what is printed can be typed
    assert not config.problems()
    assert any(metric.name == target.metric for metric in cls.metrics)
    if target.experiment == "feedback.robustness":
        assert config.controls == "both" and {"network", "parameter_matched", "flop_matched"} == set(config.requires())


def test_each_kind_of_feedback_is_beside_both_controls_with_nothing_to_spare():
    pays = [target for target in TARGETS if target.experiment == "feedback.robustness"]
    kinds = {target.name.split("/")[2] for target in pays}
    assert len(kinds) == 7
    for kind in kinds:
        beside = {
            target.name.removeprefix(f"feedback/cifar10/{kind}/"): target
            for target in pays
            if f"/{kind}/" in target.name
        }
        assert {name: target.metric for name, target in beside.items()} == {
            "parameters": "test/gain/parameters",
            "flops": "test/gain/flops",
        }
        assert beside["parameters"].options == beside["flops"].options  # the same trials
    assert {(target.value, target.tolerance) for target in pays} == {(0.0, 0.0)}


def test_searches_for_an_equilibrium_have_the_steps_to_arrive():
    assert {target.options["steps"] for target in TARGETS if "/equilibrium/" in target.name} == {12}


def test_early_answers_are_held_to_at_most_60_per_cent_of_the_steps():
    (target,) = [target for target in TARGETS if target.metric == "test/early_exit_share_of_steps"]
    found = {share: judged(target, interval([share] * 3))[0] for share in (0.25, 0.6, 0.61)}
    assert found == {0.25: "reproduced", 0.6: "reproduced", 0.61: "missed, worse"}
