"""The ``[search]`` table of a suite: what to look for, where, how and for how long.

[search]
method = "tpe"                        # or random, halving
objective = "validation/accuracy"     # or a list of several: then a Pareto front
trials = 40                           # and, or: hours = 2.0, joules = 1e5
[search.space]
lr = { low = 1e-4, high = 0.1, log = true }
"backbone.width" = [0.5, 1.0, 2.0]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from engram.backbone.contract import ExperimentConfig, Metric
from engram.backbone.errors import nearest
from engram.benchmarks.planning.space import Space, read_space

Method = Literal["random", "tpe", "halving"]
METHODS: tuple[str, ...] = get_args(Method)
KEYS = ("method", "objective", "space", "trials", "hours", "joules", "seed", "factor", "rungs")
TESTED = ("test", "all")
"""Splits that nothing is chosen by."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A checked search.

    Attributes:
        objectives: what to be good at, in the order of the suite.
        trials: the budget in whole trials: each seed of a proposal is one, and one that is given up counts the share
            of its work after which that was decided. None: no limit; so are
        hours: by the clock, while a driver works on the search, and
        joules: measured of this machine meanwhile.
        seed: of what is drawn.
        factor, rungs: of halving: at each of so many rungs one of ``factor`` goes on; a rung is ``factor`` times as
            much work as the one before, and the last one is followed by the whole.
    """

    method: Method
    objectives: tuple[Metric, ...]
    space: Space
    trials: int | None = None
    hours: float | None = None
    joules: float | None = None
    seed: int = 0
    factor: int = 3
    rungs: int = 2

    @property
    def shares(self) -> tuple[float, ...]:
        """Where the rungs are, as shares of a proposal's whole work; none where nothing is given up."""
        if self.method != "halving":
            return ()
        return tuple(self.factor**-rung for rung in range(self.rungs, 0, -1))


def read_search(
    table: Mapping[str, Any],
    space: Space,
    cls: type[ExperimentConfig],
    seeds: tuple[int, ...],
    most: int,
    problems: list[str],
) -> Search | None:
    """The search of a table in a space that was read, for an experiment with these options; adds to ``problems``.

    ``most``: trials that a suite may have.
    """
    before = len(problems)
    problems += [
        f"search.{key} must be a key of [search]; got {key}. {nearest(key, KEYS)} Options stand in [search.space]."
        for key in table
        if key not in KEYS
    ]
    method = table.get("method")
    if method not in METHODS:
        problems.append(f'search.method must be one of {", ".join(METHODS)}; got {method}. Write: method = "random"')
    objectives = _objectives(table.get("objective"), cls, problems)
    if method == "halving" and len(objectives) > 1:
        rule = "one for halving, which ranks by it"
        problems.append(f"search.objective must be {rule}; got {len(objectives)}. Choose one, or use tpe.")
    budget = _budget(table, len(seeds), most, problems)
    more = _whole(table, ("seed", 0, 0), ("factor", 2, 3), ("rungs", 1, 2), problems=problems)
    problems += [
        f"search.{key} must be left out for {method}, which gives nothing up; got {table[key]}. Or use halving."
        for key in ("factor", "rungs")
        if key in table and method in METHODS and method != "halving"
    ]
    if len(problems) > before:
        return None
    return Search(method=method, objectives=tuple(objectives), space=space, **budget, **more)  # type: ignore[arg-type]


def space_of(table: Mapping[str, Any], problems: list[str]) -> Space:
    """The space of a search, as far as it can be read; adds to ``problems``."""
    space = table.get("space")
    if not isinstance(space, Mapping) or not space:
        problems.append("search.space must be a table of options; got none. Write: [search.space]")
        return ()
    return read_space(space, problems)


def _objectives(named: Any, cls: type[ExperimentConfig], problems: list[str]) -> list[Metric]:
    """The metrics to be good at: the declared ones of those names, none of which looks at test images."""
    names = [named] if isinstance(named, str) else named
    promised = {metric.name: metric for metric in cls.metrics}
    fit = [name for name, metric in promised.items() if metric.split not in TESTED]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        problems.append(f"search.objective must be a metric or a list of them; got {named}. {nearest('', fit)}")
        return []
    found = []
    for name in dict.fromkeys(names):
        metric = promised.get(name)
        if metric is None:
            problems.append(f"search.objective must be a metric of the experiment; got {name}. {nearest(name, fit)}")
        elif metric.split in TESTED:
            rule = "no score on test images, by which nothing may be chosen"
            instead = name.replace("test/", "validation/")
            step = f"Use {instead}." if instead in fit else nearest(name, fit)
            problems.append(f"search.objective must be {rule}; got {name}. {step}")
        else:
            found.append(metric)
    return found


def _budget(table: Mapping[str, Any], seeds: int, most: int, problems: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not any(key in table for key in ("trials", "hours", "joules")):
        problems.append("search must have an end; got none. Write: trials = 40 (or hours, or joules)")
    trials = table.get("trials")
    if "trials" in table:
        if isinstance(trials, bool) or not isinstance(trials, int) or not seeds <= trials <= most:
            rule = f"a whole number from {seeds} (every proposal is run with each seed) to {most}"
            problems.append(f"search.trials must be {rule}; got {trials}. Write: trials = {max(40, seeds)}")
        found["trials"] = trials
    for key in ("hours", "joules"):
        value = table.get(key)
        if key in table:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type, operator]
                problems.append(f"search.{key} must be a number above 0; got {value}. Write: {key} = 2.0")
            found[key] = value
    return found


def _whole(table: Mapping[str, Any], *keys: tuple[str, int, int], problems: list[str]) -> dict[str, int]:
    """Whole numbers by key, each with its least value and its default."""
    found: dict[str, int] = {}
    for key, least, usual in keys:
        value = table.get(key, usual)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            problems.append(
                f"search.{key} must be a whole number of at least {least}; got {value}. Write: {key} = {usual}"
            )
        found[key] = value
    return found
