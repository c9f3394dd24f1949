"""Every published figure names a configuration that exists."""

import pytest

from backbone.registry import Registry
from benchmarks.reproduce import config_of
from continual.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_its_options_are_valid(target):
    config = config_of(target, 0, Registry.discover())
    assert not config.problems()
    assert config.metrics[0].name == target.metric
    assert 0 < target.value < 1 and target.tolerance >= 0.005 and target.source and target.protocol


def test_names_are_different():
    assert len({target.name for target in TARGETS}) == len(TARGETS)
