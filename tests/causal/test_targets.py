"""Targets of this package and its suites say what experiments take."""

from __future__ import annotations

from pathlib import Path

import pytest

from engram.backbone.registry import Registry
from engram.benchmarks.commands.reproduce import options_of
from engram.benchmarks.planning.suite import load_suite
from engram.causal.scm.configs import ScmConfig
from engram.causal.shift.configs import ShiftConfig
from engram.causal.targets import TARGETS

NAMES = (
    "domainbed-coloured-mnist",
    "worst-group-background",
    "worst-group-background-balanced",
    "solar-cells",
    "solar-cells-balanced",
)
CONFIGS = {"causal.shift": ShiftConfig, "causal.scm": ScmConfig}
SUITES = Path(__file__).parents[2] / "benchmarks" / "suites"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_its_options_are_valid(target):
    config = CONFIGS[target.experiment].resolve(options_of(target, 0, Registry.discover()))
    assert not config.problems() and any(metric.name == target.metric for metric in config.metrics)
    if isinstance(config, ShiftConfig):
        assert config.weight_decay == 0 and config.l2 > 0 and config.selection == "oracle"


@pytest.mark.parametrize("name", NAMES)
def test_its_suites_are_valid(name):
    suite = load_suite(SUITES / f"{name}.toml", Registry.discover())
    for point in suite.points:
        if point.seed == 0:
            assert not ShiftConfig.resolve(point.given).problems()
