"""The leaderboard as a picture: every seed, the mean and its interval."""

from __future__ import annotations

import math
from html import escape

from engram.benchmarks.compare.comparison import Comparison
from engram.benchmarks.compare.groups import Group
from engram.benchmarks.drawing.heatmap import short
from engram.benchmarks.drawing.numbers import number, span
from engram.benchmarks.drawing.svg import COLOURS, WIDTH, linear_axis, marker, svg_text, tick_text
from engram.benchmarks.drawing.tables import word
from engram.benchmarks.report.subject import MOST_DRAWN

_LONGEST = 60
_BETWEEN = " \N{MIDDLE DOT} "
_LEFT, _RIGHT, _ROW, _FOOT = 14, 22, 40, 44


def forest(comparison: Comparison, name: str) -> str:
    """One row per group on a shared axis, best first; groups keep the colours they have in the curves."""
    groups = comparison.groups[:MOST_DRAWN]
    values = [score for group in groups for score in group.scores.values()]
    values += [end for group in groups for end in (group.interval.low, group.interval.high) if end is not None]
    axis = linear_axis(values)
    height = _ROW * len(groups) + _FOOT + 8
    foot = height - _FOOT

    def x(value: float) -> float:
        return _LEFT + axis.place(value) * (WIDTH - _LEFT - _RIGHT)

    found = [(group.label, group.interval) for group in groups]
    said = "; ".join(f"{name}: {number(each.mean)}, {span(each.low, each.high, each.n)}" for name, each in found)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}-t {name}-d">',
        f'<title id="{name}-t">{escape(comparison.metric)} by group</title><desc id="{name}-d">{escape(said)}</desc>',
    ]
    for tick in axis.ticks:
        at = f"{x(tick):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="6" y2="{foot}"/>')
        parts.append(svg_text("tick", x(tick), foot + 16, tick_text(tick, axis.ticks), "middle"))
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{foot}" y2="{foot}"/>')
    parts.append(svg_text("label", WIDTH / 2, height - 8, comparison.label, "middle"))
    for index, group in enumerate(groups):
        top = 8 + index * _ROW
        middle, mean = top + 25, group.interval.mean
        parts.append(svg_text("name halo", _LEFT, top + 11, _called(group), "start"))
        for seed, score in group.scores.items():
            if math.isfinite(score):
                dot = f'<circle class="dot seed c{index % COLOURS}" cx="{x(score):.1f}" cy="{middle}" r="2.6"/>'
                parts.append(f"<g>{dot}<title>seed {seed}: {number(score)}</title></g>")
        if group.interval.low is not None and group.interval.high is not None:
            ends = f'x1="{x(group.interval.low):.1f}" x2="{x(group.interval.high):.1f}"'
            parts.append(f'<line class="whisker c{index % COLOURS}" {ends} y1="{middle}" y2="{middle}"/>')
        if math.isfinite(mean):
            parts.append(f"<g>{marker(index, x(mean), middle, 5)}<title>mean {number(mean)}</title></g>")
    return "".join([*parts, "</svg>"])


def row_words(comparison: Comparison) -> str:
    """The options whose values rows are called by, where a name with all of them is too long; else ""."""
    long = any(len(group.label) > _LONGEST for group in comparison.groups[:MOST_DRAWN])
    return _BETWEEN.join(comparison.by) if long and len(comparison.by) > 1 else ""


def _called(group: Group) -> str:
    """Its name, or the values of its options alone."""
    if len(group.label) <= _LONGEST:
        return group.label
    return short(_BETWEEN.join(map(word, group.options.values())), _LONGEST)
