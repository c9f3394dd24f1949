"""Figures over tasks: mean ranks, and how often runs score so much."""

from __future__ import annotations

from engram.benchmarks.compare.across import alike
from engram.benchmarks.compare.comparison import Comparison
from engram.benchmarks.compare.tasks import Tasks
from engram.benchmarks.drawing.ranks import RankLine
from engram.benchmarks.drawing.svg import Chart, Series

_MOST = 12
"""Groups that are drawn: more lines cannot be told apart."""


def figures(found: Comparison, tasks: Tasks) -> list[Chart | RankLine]:
    """Ranks with their critical difference, profiles of scores, and of ratios where scores are costs."""
    drawn: list[Chart | RankLine] = []
    if tasks.ranks is not None:
        held = sorted(zip(tasks.ranks.means, tasks.scores, strict=True), key=lambda each: each[0])[:_MOST]
        means = [mean for mean, _ in held]
        title = f"Mean ranks over {len(tasks.names)} tasks"
        stretches = alike(means, tasks.ranks.distance)
        drawn.append(RankLine(title, [name for _, name in held], means, tasks.ranks.distance, stretches))
    at, profiles = tasks.profiles()
    series = [
        Series(name, [*zip(at.tolist(), share.tolist(), strict=True)], low.tolist(), high.tolist())
        for name, (share, low, high) in list(profiles.items())[:_MOST]
    ]
    better = "at least" if tasks.direction == "max" else "at most"
    drawn.append(Chart("Performance profiles", found.label, f"share of runs with {better} so much", series))
    if costs := tasks.ratios():
        lines = [
            Series(name, [(float(ratio), (place + 1) / len(held)) for place, ratio in enumerate(held)])
            for name, held in list(costs.items())[:_MOST]
        ]
        drawn.append(Chart("Ratio profiles", "cost over the least", "share of tasks", lines, x_scale="log2"))
    return drawn
