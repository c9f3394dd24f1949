"""Every published figure names a configuration that exists."""

import shlex

import pytest

from engram.backbone.registry import Registry
from engram.benchmarks.commands.command import read_experiment
from engram.benchmarks.commands.flags import Planning
from engram.benchmarks.commands.reproduce import _words, options_of
from engram.benchmarks.planning.config import experiment_config
from engram.fewshot.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_its_options_are_valid(target):
    registry = Registry.discover()
    given = options_of(target, 0, registry)
    config = experiment_config(registry, target.experiment).resolve(given)
    shown = ["--seed", "0", *shlex.split(_words(target))]
    assert read_experiment(target.experiment, shown, Planning, registry)[1] == given  # what is printed can be typed
    assert not config.problems() and config.training == "episodic" and config.train_shots == int(config.shots)
    assert any(metric.name == target.metric and metric.primary for metric in config.metrics)
    assert 0.9 < target.value < 1 and target.tolerance == 0.005 and len(target.seeds) == 3
