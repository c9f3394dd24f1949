"""The leaderboard as a picture: every seed, the mean and its interval."""

from __future__ import annotations

import math
from html import escape

from benchmarks.compare import Comparison
from benchmarks.numbers import number, span
from benchmarks.svg import COLOURS, WIDTH, linear_axis, marker, tick_text

_LEFT, _RIGHT, _ROW, _FOOT = 14, 14, 40, 44


def forest(comparison: Comparison, name: str) -> str:
    """One row per group on a shared axis, best first; groups keep the colours they have in the curves."""
    groups = comparison.groups
    values = [score for group in groups for score in group.scores.values()]
    values += [end for group in groups for end in (group.interval.low, group.interval.high) if end is not None]
    axis = linear_axis(values)
    height = _ROW * len(groups) + _FOOT + 8
    foot = height - _FOOT

    def x(value: float) -> float:
        return _LEFT + axis.place(value) * (WIDTH - _LEFT - _RIGHT)

    said = "; ".join(f"{group.label}: {number(group.interval.mean)}, {span(group.interval)}" for group in groups)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}-t {name}-d">',
        f'<title id="{name}-t">{escape(comparison.metric)} by group</title><desc id="{name}-d">{escape(said)}</desc>',
    ]
    for tick in axis.ticks:
        at = f"{x(tick):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="6" y2="{foot}"/>')
        parts.append(
            f'<text class="tick" x="{at}" y="{foot + 16}" text-anchor="middle">{tick_text(tick, axis.ticks)}</text>'
        )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{foot}" y2="{foot}"/>')
    parts.append(
        f'<text class="label" x="{WIDTH / 2}" y="{height - 8}" text-anchor="middle">{escape(comparison.metric)}</text>'
    )
    for index, group in enumerate(groups):
        top = 8 + index * _ROW
        middle, mean = top + 25, group.interval.mean
        parts.append(f'<text class="name halo" x="{_LEFT}" y="{top + 11}">{escape(_short(group.label))}</text>')
        for seed, score in group.scores.items():
            if math.isfinite(score):
                dot = f'<circle class="dot seed c{index % COLOURS}" cx="{x(score):.1f}" cy="{middle}" r="2.6"/>'
                parts.append(f"<g>{dot}<title>seed {seed}: {number(score)}</title></g>")
        if group.interval.low is not None and group.interval.high is not None:
            ends = x(group.interval.low), x(group.interval.high)
            parts.append(
                f'<line class="whisker c{index % COLOURS}" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{middle}" y2="{middle}"/>'
            )
        if math.isfinite(mean):
            parts.append(f"<g>{marker(index, x(mean), middle, 5)}<title>mean {number(mean)}</title></g>")
    return "".join([*parts, "</svg>"])


def _short(label: str) -> str:
    return label if len(label) <= 60 else f"{label[:57]}..."
