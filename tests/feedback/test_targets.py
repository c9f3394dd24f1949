"""Every claim names a comparison that can be planned, with the controls that it is about."""

import shlex

import pytest

from engram.backbone.registry import Registry
from engram.benchmarks.commands.command import read_experiment
from engram.benchmarks.commands.flags import Planning
from engram.benchmarks.commands.reproduce import _words, options_of
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
