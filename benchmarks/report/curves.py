"""Lines of a report: learning curves from the ledgers, and how lines of several seeds become one with a band."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from engram.backbone.contract import Metric, SplitName
from engram.benchmarks.drawing.svg import Chart, Point, Series
from engram.benchmarks.records.meaning import declared, today
from engram.benchmarks.records.trials import Record, number

MOST_POINTS = 300  # per line; more cannot be told apart
_SPLITS: tuple[SplitName | None, ...] = ("validation", "train", "test", "all", None)


def learning_curves(groups: Mapping[str, list[Record]]) -> list[Chart]:
    """One chart per metric of the ledgers, those of the trials they were made from included: the mean over seeds, and
    their range as a band. What was held out comes first, then what was trained on, then tests; within each in
    the order in which the experiment declares its metrics. What was measured once in every run has none.
    """
    curves: dict[str, dict[str, list[dict[float, float]]]] = {}
    promised: dict[str, Metric] = {}
    for name, records in groups.items():
        for record in (each for one in records for each in (*one.inputs, one)):
            promised |= declared(record.experiment)
            for metric, points in ledger_points(record).items():
                curves.setdefault(metric, {}).setdefault(name, []).append(points)
    places = {name: (_SPLITS.index(metric.split), place) for place, (name, metric) in enumerate(promised.items())}
    last = (len(_SPLITS), len(promised))
    charts = []
    for metric in sorted(curves, key=lambda metric: (places.get(metric, last), metric)):
        series = [merge_lines(name, [sorted(run.items()) for run in runs]) for name, runs in curves[metric].items()]
        if any(len(each.points) > 1 for each in series):  # what was measured once has no course
            charts.append(Chart(metric, "step", promised[metric].label if metric in promised else metric, series))
    return charts


def ledger_points(record: Record) -> dict[str, dict[float, float]]:
    """Metric, as it is called today -> step -> value."""
    found: dict[str, dict[float, float]] = {}
    for line in record.ledger():
        name = today(record.experiment, record.config, line.name)
        found.setdefault(name, {})[float(line.step)] = line.value
    return found


def merge(name: str, runs: Sequence[Mapping[float, float]]) -> Series:
    """Mean and range over runs, at the places that all of them reached (one that broke off must not bend the mean)."""
    shared = set(runs[0]).intersection(*runs[1:]) or set().union(*runs)
    places = thin(sorted(shared))
    points: list[Point] = []
    low: list[float] = []
    high: list[float] = []
    for x in places:
        values = [run[x] for run in runs if x in run and math.isfinite(run[x])]
        points.append((x, mean(values)))
        low.append(min(values, default=math.nan))
        high.append(max(values, default=math.nan))
    return Series(name, points, low, high) if len(runs) > 1 else Series(name, points)


def mean(values: Sequence[float]) -> float:
    """Not a number where there is none, or where their sum is beyond all numbers."""
    try:
        return math.fsum(values) / len(values)
    except (ArithmeticError, ValueError):
        return math.nan


def thin(places: list[float]) -> list[float]:
    """At most `MOST_POINTS` of them, the last one always."""
    stride = max(1, math.ceil(len(places) / MOST_POINTS))
    kept = places[::stride]
    return kept if not places or kept[-1] == places[-1] else [*kept, places[-1]]


def as_pairs(pairs: Sequence[Sequence[float | None]]) -> list[Point]:
    return [(number(x), number(y)) for x, y in pairs]


def merge_lines(name: str, runs: Sequence[Sequence[Point]]) -> Series:
    """Mean and range over runs. Where the places were measured too, and differ, points are averaged by their rank."""
    places = [[x for x, _ in run] for run in runs]
    measured = any(each != places[0] for each in places) and len({len(run) for run in runs}) == 1
    if not measured:
        return merge(name, [dict(run) for run in runs])
    ranks = [list(zip(*points, strict=True)) for points in zip(*runs, strict=True)]
    points = [(mean(xs), mean(ys)) for xs, ys in ranks]
    return Series(name, points, [min(ys) for _, ys in ranks], [max(ys) for _, ys in ranks])
