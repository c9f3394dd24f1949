"""Every published figure names a configuration that exists."""

import shlex

import pytest

from engram.backbone.registry import Registry
from engram.benchmarks.commands.command import read_experiment
from engram.benchmarks.commands.flags import Planning
from engram.benchmarks.commands.reproduce import _words, options_of
from engram.benchmarks.planning.config import experiment_config
from engram.continual.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_its_options_are_valid(target):
    registry = Registry.discover()
    given = options_of(target, 0, registry)
    config = experiment_config(registry, target.experiment).resolve(given)
    shown = ["--seed", "0", *shlex.split(_words(target))]
    assert read_experiment(target.experiment, shown, Planning, registry)[1] == given  # what is printed can be typed
    assert not config.problems()
    assert not config.to_choose()  # a published protocol says how strong a penalty is
    assert config.metrics[0].name == target.metric
    assert 0 < target.value < 1 and target.tolerance >= 0.005 and target.source and target.protocol


def test_only_what_a_source_proposes_itself_may_be_better_than_published():
    """A baseline that is too good makes the gain of what is measured against it look small."""
    one_sided = {target.name.rpartition("/")[2].rpartition("-")[0] for target in TARGETS if not target.exact}
    assert one_sided == {"der", "derpp", "si", "class-bi", *(f"{kind}-dgr" for kind in ("task", "domain", "class"))}
    named = {target.name: target for target in TARGETS}
    assert all(named[f"continual/split-mnist/{kind}-dgr"].exact for kind in ("task", "domain", "class"))
    assert all(named[f"continual/split-cifar10/er-{buffer}"].exact for buffer in (200, 500))
    assert all(target.date for target in TARGETS)


def test_experience_replay_is_judged_by_what_its_code_gives_today():
    (er,) = (target for target in TARGETS if target.present is not None)
    assert (er.name, er.value, er.date) == ("continual/split-cifar10/er-500", 0.5774, "2020")
    assert (er.judged_by, er.present.date) == (0.6339, "2024")
    assert er.options["strategies.er.copies"] is True and er.options["border"] == "black"  # as that code has it


def test_names_are_different():
    assert len({target.name for target in TARGETS}) == len(TARGETS)
