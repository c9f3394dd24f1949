"""Looks at whether a plan can be run on so many devices, before its first trial starts."""

from __future__ import annotations

from collections.abc import Sequence

from engram.backbone.errors import UserError
from engram.backbone.options import Checker
from engram.backbone.registry import Registry
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.planning.config import experiment_config
from engram.benchmarks.planning.devices import undividable, undivided, undivided_choices
from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.planning.suite import Suite
from engram.benchmarks.records.trials import Record


def check_devices(trials: Sequence[Trial], registry: Registry, how: RunSetting, suite: Suite | None = None) -> None:
    """Refuse to share the batches of trials that are not done and cannot be, or of what a suite's search may choose.

    Raises:
        UserError: one line for each thing that one process has to do alone.
    """
    if how.devices == 1:
        return
    checker = Checker(registry, lambda name: name, "Plan the trial again.")
    alone: dict[str, None] = {}
    for trial in trials:
        config = checker.build(experiment_config(registry, trial.experiment), trial.config)
        if config is not None and Record(trial.folder).status != "done":
            alone |= dict.fromkeys(undivided(registry, trial.experiment, config))
    if suite is not None and suite.search is not None:
        alone |= dict.fromkeys(undivided_choices(registry, suite.experiment, suite.search.space))
    if alone:
        raise UserError("\n".join(str(undividable(name, how.devices)) for name in alone))
