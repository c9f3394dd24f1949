"""Groups of trials, and what their differences are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from engram.backbone.contract import Bounds, Direction, Scalar
from engram.backbone.measures.intervals import UNBOUNDED, Interval, interval
from engram.benchmarks.compare.stats import Paired, all_paired, holm, verdict
from engram.benchmarks.drawing.tables import word
from engram.benchmarks.records.meaning import bounds_of, declared
from engram.benchmarks.records.outcomes import Outcome, Outcomes

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
    tests = all_paired([(worse.scores, better.scores) for worse, better in couples], bounds)
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
