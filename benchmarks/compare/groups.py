"""Groups the trials of a sweep, and says what their differences are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engram.backbone.contract import PLAIN_UNITS, Bounds, Direction, Metric, Scalar
from engram.backbone.errors import must, nearest
from engram.backbone.measures.intervals import UNBOUNDED, Interval, interval
from engram.benchmarks.compare.gate import Condition, GateResult
from engram.benchmarks.compare.stats import Paired, holm, paired, verdict
from engram.benchmarks.drawing.tables import word
from engram.benchmarks.records.meaning import bounds_of, declared
from engram.benchmarks.records.outcomes import (
    Outcome,
    Outcomes,
    choose_axes,
    choose_metric,
    one_for_each_seed,
)

MOST_GROUPS = 64
"""Of which every pair is tested: all pairs of a thousand groups are half a million tests."""


@dataclass(frozen=True)
class Group:
    """Trials that differ in nothing but the seed (and in options that are averaged over within each seed)."""

    label: str
    options: Mapping[str, Scalar]
    scores: Mapping[int, float]
    """Seed -> score."""
    interval: Interval
    seconds: float | None
    """Mean duration of a trial."""

    def statistic(self, name: str) -> float | None:
        """One number by the name that ``--fail-if`` gives it; None when there is none."""
        values = list(self.scores.values())
        if name in ("min", "max"):
            return (min if name == "min" else max)(values) if values else None
        found = self.interval
        return {"mean": found.mean, "low": found.low, "high": found.high, "n": float(found.n)}[name]


@dataclass(frozen=True)
class Pair:
    """``group - against``, paired by seed; ``p`` is Holm-adjusted over all pairs of the table."""

    group: str
    against: str
    paired: Paired
    p: float | None
    verdict: str


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
    gate: GateResult | None = None

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
        return len(self.groups) > 1 and self.meaning is not None and self.meaning.split in ("test", "all")

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
                "absent": [{"trial": one.trial, "status": one.status, "why": one.why} for one in self.absent],
            },
            "gate": None if self.gate is None else {**asdict(self.gate), "tripped": self.gate.tripped},
            "artifacts": {},
        }


def compare_outcomes(
    outcomes: Outcomes, by: str | None = None, metric: str | None = None, condition: Condition | None = None
) -> Comparison:
    """Compare the groups of trials that are read already (`engram.benchmarks.comparing.compare`)."""
    one_for_each_seed(outcomes)
    name, promised = choose_metric(outcomes, metric), declared(outcomes.experiment)
    meaning = promised.get(name)
    axes = choose_axes(outcomes, by)
    groups = make_groups(outcomes, axes, name)
    ranked = sorted(groups, key=lambda group: rank(group, "max" if meaning is None else meaning.direction))
    gate = None if condition is None else judge(condition, outcomes, axes)
    absent = [trial for trial in outcomes.trials if trial.status != "done" or name not in trial.metrics]
    pairs = make_pairs(ranked, bounds_of(promised, name))
    return Comparison(outcomes.sweep, outcomes.experiment, name, meaning, axes, ranked, pairs, absent, gate)


def make_groups(outcomes: Outcomes, axes: tuple[str, ...], metric: str) -> list[Group]:
    """The groups in the order of the plan; one without any score is left out (its trials are listed as absent)."""
    cells: dict[str, list[Outcome]] = {}
    for trial in outcomes.trials:
        cells.setdefault(label(axes, trial.options), []).append(trial)
    others = [axis for axis in outcomes.axes if axis not in axes]
    bounds = bounds_of(declared(outcomes.experiment), metric)
    groups = []
    for name, trials in cells.items():
        scores = seed_scores(trials, others, metric)
        if not scores:
            continue
        times = [trial.seconds for trial in trials if trial.seconds is not None]
        seconds = sum(times) / len(times) if times else None
        options = {axis: trials[0].options.get(axis) for axis in axes}
        groups.append(Group(name, options, scores, interval(list(scores.values()), bounds=bounds), seconds))
    return groups


def seed_scores(trials: list[Outcome], others: list[str], metric: str) -> dict[int, float]:
    """Seed -> score. Options that do not make groups are averaged over within a seed, so that seeds stay the unit of
    chance; a seed that lacks some of their values would be the mean of something else and is left out.
    """
    wanted = {label(tuple(others), trial.options) for trial in trials}
    found: dict[int, dict[str, float]] = {}
    for trial in trials:
        if trial.status == "done" and metric in trial.metrics:
            cell = label(tuple(others), trial.options)
            found.setdefault(trial.seed or 0, {})[cell] = trial.metrics[metric]
    whole = {seed: cells for seed, cells in sorted(found.items()) if cells.keys() == wanted}
    return {seed: math.fsum(cells.values()) / len(cells) for seed, cells in whole.items()}


def label(axes: tuple[str, ...], options: Mapping[str, Scalar]) -> str:
    """How a group is called.

    >>> label(("backbone",), {"backbone": "mlp"}), label(("backbone", "lr"), {"backbone": "mlp", "lr": 0.1})
    ('mlp', 'backbone=mlp lr=0.1')
    """
    if len(axes) == 1:
        return word(options.get(axes[0]))
    return " ".join(f"{axis}={word(options.get(axis))}" for axis in axes) or "all"


def rank(group: Group, direction: Direction) -> tuple[bool, float]:
    """Sorts the best first and what is not a number last."""
    mean = group.interval.mean
    return math.isnan(mean), -mean if direction == "max" else mean


def make_pairs(groups: list[Group], bounds: Bounds = UNBOUNDED) -> list[Pair]:
    """All pairs, the worse minus the better. Holm counts them all, for which group is best was not known before.

    Beyond `MOST_GROUPS` only pairs with the best group are made, with Bonferroni's correction for all that there are,
    which is never less strict. ``bounds``: of a score.
    """
    many = len(groups) > MOST_GROUPS
    others = groups[:1] if many else groups
    couples = [(worse, better) for place, better in enumerate(others) for worse in groups[place + 1 :]]
    tests = [paired(worse.scores, better.scores, bounds) for worse, better in couples]
    raw = [(index, test.p) for index, test in enumerate(tests) if test.p is not None]
    count = math.comb(len(groups), 2) if many else len(raw)
    values = [p for _, p in raw]
    corrected = [min(1.0, count * p) for p in values] if many else holm(values)
    adjusted = dict(zip([index for index, _ in raw], corrected, strict=True))
    pairs = []
    for index, ((worse, better), test) in enumerate(zip(couples, tests, strict=True)):
        p = adjusted.get(index)
        pairs.append(Pair(worse.label, better.label, test, p, verdict(len(test.seeds), p, count)))
    return pairs


def judge(condition: Condition, outcomes: Outcomes, axes: tuple[str, ...]) -> GateResult:
    """Try a gate on every group it speaks of.

    Raises:
        UserError: its metric or group does not exist.
    """
    metric = choose_metric(outcomes, condition.metric)
    groups = {group.label: group for group in make_groups(outcomes, axes, metric)}
    labels = list(dict.fromkeys(label(axes, trial.options) for trial in outcomes.trials))
    if condition.group is not None:
        if condition.group not in labels:
            raise must("--fail-if's group", "one of the table", repr(condition.group), nearest(condition.group, labels))
        labels = [condition.group]
    reasons = []
    for name in labels:
        value = groups[name].statistic(condition.statistic) if name in groups else None
        if condition.trips(value):
            shown = "unknown" if value is None else f"{value:.6g}"
            reasons.append(f"{condition.statistic} {metric} of {name} is {shown}")
    return GateResult(condition.text, tuple(reasons))


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
