"""Spike times of neurons as SVG text: a row for each neuron, a stroke for each spike."""

from __future__ import annotations

from engram.backbone.contract import Raster
from engram.benchmarks.drawing.heatmap import short
from engram.benchmarks.drawing.svg import (
    COLOURS,
    LETTER,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    begin,
    linear_axis,
    svg_text,
    tick_text,
)

_BOTTOM, _GAP = 46, 10.0
_MOST_ROWS = 400  # neurons that are drawn
_MOST_LETTERS = 12


def raster_plot(raster: Raster, name: str) -> str:
    """The spikes as one ``<svg>``; ``name`` must be unique in the page and plain (it becomes an id)."""
    groups = _thinned(raster)
    rows = sum(map(len, groups.values()))
    row = min(7.0, max(1.5, 300 / max(rows, 1)))
    ticks = linear_axis([raster.start, raster.end], most=9, pad=0.0, counts=True)
    axis = Axis(raster.start, max(raster.end, raster.start + 1e-9), ticks.ticks)
    left = 14 + LETTER * min(max(map(len, groups), default=0), _MOST_LETTERS)
    foot = TOP + rows * row + _GAP * max(len(groups) - 1, 0)

    def x(value: float) -> float:
        return left + axis.place(value) * (WIDTH - left - RIGHT)

    parts = [begin(name, raster.title, describe(raster), foot + _BOTTOM)]
    for tick in (tick for tick in axis.ticks if raster.start <= tick <= raster.end):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{foot:.1f}"/>')
        parts.append(svg_text("tick", x(tick), foot + 16, tick_text(tick, axis.ticks), "middle"))
    top = float(TOP)
    for index, (group, trains) in enumerate(groups.items()):
        strokes = [
            f"M{x(time):.1f} {top + (place + 0.125) * row:.2f}v{0.75 * row:.2f}"
            for place, times in enumerate(trains)
            for time in times
            if raster.start <= time <= raster.end
        ]
        parts.append(f'<path class="spike c{index % COLOURS}" d="{"".join(strokes)}"/>')
        parts.append(svg_text("tick", left - 8, top + len(trains) * row / 2 + 4, short(group, _MOST_LETTERS), "end"))
        top += len(trains) * row + _GAP
    parts.append(f'<line class="axis" x1="{left}" x2="{WIDTH - RIGHT}" y1="{foot:.1f}" y2="{foot:.1f}"/>')
    parts.append(svg_text("label", (left + WIDTH - RIGHT) / 2, foot + 38, raster.x_label, "middle"))
    return "".join([*parts, "</svg>"])


def _thinned(raster: Raster) -> dict[str, list[list[float]]]:
    """The groups with every so manieth neuron, where all are too many."""
    stride = max(1, -(-sum(map(len, raster.groups.values())) // _MOST_ROWS))
    return {group: [list(times) for times in trains[::stride]] for group, trains in raster.groups.items()}


def describe(raster: Raster) -> str:
    """The spikes in words, for those who hear them.

    >>> describe(Raster(title="t", x_label="step", start=0, end=4, groups={"relu1": [[1, 2], []]}))
    'Spikes against step, from 0 to 4. relu1: 2 spikes of 2 neurons, 1 silent.'
    """
    said = []
    for group, trains in raster.groups.items():
        silent = sum(not times for times in trains)
        said.append(f"{group}: {sum(map(len, trains))} spikes of {len(trains)} neurons, {silent} silent.")
    return f"Spikes against {raster.x_label}, from {raster.start:g} to {raster.end:g}. {' '.join(said)}"
