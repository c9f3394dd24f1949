"""Groups of trials side by side, best first, and what their differences are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engram.backbone.contract import PLAIN_UNITS, Direction, Metric, Scalar
from engram.benchmarks.compare.baseline import Scores, read_baseline
from engram.benchmarks.compare.gate import Condition, GateResult, parse
from engram.benchmarks.compare.gathering import narrowed
from engram.benchmarks.compare.groups import Group, Pair, make_groups, make_pairs, rank
from engram.benchmarks.compare.judging import judge
from engram.benchmarks.compare.tasks import Tasks, over_tasks
from engram.benchmarks.compare.wanted import ALL, Wanted
from engram.benchmarks.planning.search import TESTED
from engram.benchmarks.problems import Problems
from engram.benchmarks.records.meaning import bounds_of, declared
from engram.benchmarks.records.outcomes import (
    Outcome,
    Outcomes,
    choose_axes,
    choose_metric,
    one_for_each_seed,
    option_of,
)


@dataclass(frozen=True)
class Comparison:
    """A sweep's groups, best first, and the differences between them."""

    sweep: str
    experiment: str
    metric: str
    meaning: Metric | None
    """What the experiment says of the metric; None where it says nothing of it, or is not installed here."""
    by: tuple[str, ...]
    groups: list[Group]
    pairs: list[Pair]
    absent: list[Outcome]
    """Trials without a score: failed, interrupted, running or not begun."""
    scores: Mapping[str, Scores]
    """By metric (the one compared, and those of gates): what a later comparison is held against."""
    gate: GateResult | None = None
    tasks: Tasks | None = None

    @property
    def baseline(self) -> str | None:
        """The best group, which the others are compared with."""
        return self.groups[0].label if self.groups else None

    @property
    def direction(self) -> Direction:
        """Which end of the metric comes first: the better one, the highest where nobody says what is better."""
        return "max" if self.meaning is None else self.meaning.direction

    @property
    def oracle(self) -> bool:
        """Whether a best group is picked by looking at test data."""
        return len(self.groups) > 1 and self.meaning is not None and self.meaning.split in TESTED

    @property
    def label(self) -> str:
        """The metric on an axis, with its unit where that is not plain."""
        unit = "" if self.meaning is None or self.meaning.unit in PLAIN_UNITS else f" ({self.meaning.unit})"
        return f"{self.metric}{unit}"

    @property
    def order(self) -> str:
        """How the groups are ordered, in words."""
        if self.meaning is None:
            return "highest first; what is better is not declared"
        better = "higher is better" if self.direction == "max" else "lower is better"
        return f"{better}; oracle selection" if self.oracle else better

    @property
    def title(self) -> str:
        return f"{self.sweep}: {self.metric} ({self.order})"

    @property
    def exit_code(self) -> int:
        return 3 if self.gate is not None and self.gate.tripped else 0

    def against_best(self) -> list[Pair]:
        """Every other group minus the best one, in the order of the table."""
        mine = {pair.group: pair for pair in self.pairs if pair.against == self.baseline}
        return [mine[group.label] for group in self.groups[1:]]

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not finite is None."""
        return {
            "experiment": self.experiment,
            "sweep": self.sweep,
            "metric": self.metric,
            "direction": self.direction,
            "by": list(self.by),
            "oracle_selection": self.oracle,
            "baseline": self.baseline,
            "metrics": {f"{group.label}/{self.metric}": finite(group.interval.mean) for group in self.groups},
            "tables": {
                "groups": [group_row(group) for group in self.groups],
                "pairs": [pair_row(pair) for pair in self.pairs],
                "tasks": [] if self.tasks is None else task_rows(self.tasks),
                "absent": [{"trial": one.trial, "status": one.status, "why": one.why} for one in self.absent],
            },
            "scores": {
                metric: {
                    group: {str(seed): finite(score) for seed, score in each.items()} for group, each in held.items()
                }
                for metric, held in self.scores.items()
            },
            "gate": None if self.gate is None else gate_json(self.gate),
            "artifacts": {},
        }


def compare_outcomes(outcomes: Outcomes, wanted: Wanted = ALL) -> Comparison:
    """Compare the groups of trials that are read already (`engram.benchmarks.comparing.compare`)."""
    outcomes, name, axes, option, conditions = _understood(outcomes, wanted)
    one_for_each_seed(outcomes)
    promised, problems = declared(outcomes.experiment), Problems()
    meaning = promised.get(name)
    direction = "max" if meaning is None else meaning.direction
    groups = sorted(make_groups(outcomes, axes, name), key=lambda group: rank(group, direction))
    tasks = problems.of(lambda: None if option is None else over_tasks(outcomes, axes, name, option, groups, direction))
    gate = problems.of(lambda: _gate(wanted, conditions, outcomes, axes))
    problems.require()
    absent = [trial for trial in outcomes.trials if trial.status != "done" or name not in trial.metrics]
    return Comparison(
        outcomes.sweep,
        outcomes.experiment,
        name,
        meaning,
        axes,
        groups,
        make_pairs(groups, bounds_of(promised, name)),
        absent,
        _scores(outcomes, axes, [name, *(choose_metric(outcomes, each.metric) for each in conditions)]),
        gate,
        tasks,
    )


def _understood(
    outcomes: Outcomes, wanted: Wanted
) -> tuple[Outcomes, str, tuple[str, ...], str | None, tuple[Condition, ...]]:
    """(the trials, the metric, the options that make groups, the one that makes tasks, the conditions) wanted.

    Raises:
        UserError: a line for everything that there is not.
    """
    problems = Problems()
    conditions = problems.of(lambda: () if wanted.fail_if is None else parse(wanted.fail_if)) or ()
    outcomes = problems.of(lambda: narrowed(outcomes, wanted.only)) or outcomes
    name = problems.of(lambda: choose_metric(outcomes, wanted.metric))
    for condition in conditions:
        problems.of(lambda metric=condition.metric: choose_metric(outcomes, metric))
    option = problems.of(lambda: None if wanted.tasks is None else option_of(outcomes, wanted.tasks, "--tasks"))
    axes = problems.of(lambda: choose_axes(outcomes, wanted.by)) or ()
    problems.require()
    axes = tuple(axis for axis in axes if wanted.by is not None or axis != option)
    return outcomes, name or "", axes, option, conditions


def _gate(
    wanted: Wanted, conditions: Sequence[Condition], outcomes: Outcomes, axes: tuple[str, ...]
) -> GateResult | None:
    baseline = None if wanted.baseline is None else read_baseline(wanted.baseline, axes)
    return None if wanted.fail_if is None else judge(wanted.fail_if, conditions, outcomes, axes, baseline)


def _scores(outcomes: Outcomes, axes: tuple[str, ...], metrics: Sequence[str]) -> Mapping[str, Scores]:
    return {
        metric: {group.label: group.scores for group in make_groups(outcomes, axes, metric)}
        for metric in dict.fromkeys(metrics)
    }


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def group_row(group: Group) -> dict[str, Scalar]:
    """One line of the table as plain values."""
    return {
        "group": group.label,
        **group.options,
        "mean": finite(group.interval.mean),
        "low": finite(group.interval.low),
        "high": finite(group.interval.high),
        "n": group.interval.n,
        "min": finite(group.statistic("min")),
        "max": finite(group.statistic("max")),
        "seconds": finite(group.seconds),
    }


def pair_row(pair: Pair) -> dict[str, Scalar]:
    found = pair.paired.difference
    return {
        "group": pair.group,
        "against": pair.against,
        "difference": finite(found.mean),
        "low": finite(found.low),
        "high": finite(found.high),
        "n": found.n,
        "p": finite(pair.paired.p),
        "p_holm": finite(pair.p),
        "verdict": pair.verdict,
    }


def task_rows(tasks: Tasks) -> list[dict[str, Scalar]]:
    """The groups over all tasks as plain values."""
    rows: list[dict[str, Scalar]] = []
    for each in tasks.standings:
        behind = each.behind
        rows.append(
            {
                "group": each.group,
                "interquartile_mean": finite(each.typical.mean),
                "low": finite(each.typical.low),
                "high": finite(each.typical.high),
                "rank": finite(each.rank),
                "best_is_better": None if behind is None else finite(behind.mean),
                "best_low": None if behind is None else finite(behind.low),
                "best_high": None if behind is None else finite(behind.high),
            }
        )
    return rows


def gate_json(gate: GateResult) -> dict[str, Any]:
    return {**asdict(gate), "reasons": list(gate.reasons), "tripped": gate.tripped}
