"""Looks at the data of a plan, and what its experiments lack, before its first trial starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from engram.backbone.contract import Registered
from engram.backbone.errors import UserError
from engram.backbone.options.named import named_schema
from engram.backbone.options.schema import schema
from engram.backbone.registry import Registry
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.planning.config import experiment_config
from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.records.memory import memory_of
from engram.benchmarks.records.trials import Record


def check_data(trials: Sequence[Trial], registry: Registry, how: RunSetting) -> None:
    """Look at every data set of the trials that are not done, each once, and ask their experiments
    what they lack.

    Raises:
        UserError: all that is wrong with any of them, one line for each problem.
    """
    memory = memory_of(how.out)
    todo = [trial for trial in trials if Record(trial.folder, memory=memory).status != "done"]
    wanted = {json.dumps(each, sort_keys=True): each for trial in todo for each in datasets_of(trial, registry)}
    problems: list[str] = []
    for experiment in dict.fromkeys(trial.experiment for trial in todo):
        problems += registry.lacks(experiment)
    for name, options, training in wanted.values():
        problems += registry.problems(name, options, root=how.data_root, download=how.download, training=training)
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))


def datasets_of(trial: Trial, registry: Registry) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """(name, options, whether it is trained on) of every data set that the trial's configuration names."""
    options = schema(experiment_config(registry, trial.experiment))
    for option in options:
        name = trial.config.get(option.key)
        if option.kind != "datasets" or not isinstance(name, str):
            continue
        of_it = next((other for other in options if other.options_of == option.field), None)
        given = trial.config.get(of_it.key, {}) if of_it else {}
        known = named_schema(registry, option, name) or ()
        mark = next(mark for mark in option.metadata if isinstance(mark, Registered))
        yield name, {each.field: given[each.key] for each in known if each.key in given}, mark.training
