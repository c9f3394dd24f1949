"""Points with error bars as SVG text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape

from engram.backbone.contract import Range, Scatter
from engram.benchmarks.drawing.numbers import number
from engram.benchmarks.drawing.svg import COLOURS, begin, clip, drawable, frame, linear_axis, marker, on

_MOST_SAID = 8


def scatter_plot(scatter: Scatter, name: str) -> str:
    """The points as one ``<svg>``; ``name`` must be unique in the page and plain (it becomes an id)."""
    points = [point for series in scatter.series.values() for point in series]
    xs = [x for x, _ in points] + [end for each in scatter.x_ranges.values() for pair in each for end in pair]
    ys = [y for _, y in points] + [end for each in scatter.y_ranges.values() for pair in each for end in pair]
    if scatter.diagonal:
        xs = ys = xs + ys
    x_axis, y_axis = linear_axis(xs, most=7), linear_axis(ys)
    x, y = on(x_axis, y_axis)
    parts = [begin(name, scatter.title, describe(scatter))]
    parts += [*frame(scatter.x_label, scatter.y_label, x_axis, y_axis), clip(name)]
    if scatter.diagonal:
        low, high = x_axis.low, x_axis.high
        ends = f'x1="{x(low):.1f}" y1="{y(low):.1f}" x2="{x(high):.1f}" y2="{y(high):.1f}"'
        parts.append(f'<line class="diagonal" {ends}/>')
    for index, (series, held) in enumerate(scatter.series.items()):
        x_ends, y_ends = scatter.x_ranges.get(series, ()), scatter.y_ranges.get(series, ())
        parts += _error_bars(index, held, x_ends, y_ends, x, y)
        for px, py in held:
            if drawable(px) and drawable(py):
                said = f"{series}: {number(py)} at {number(px)}"
                parts.append(f"<g>{marker(index, x(px), y(py), 4)}<title>{escape(said)}</title></g>")
    return "".join([*parts, "</g></svg>"])


def _error_bars(
    index: int,
    points: Sequence[tuple[float, float]],
    x_ends: Sequence[Range],
    y_ends: Sequence[Range],
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> Iterator[str]:
    kind = f'class="error c{index % COLOURS}"'
    for (px, py), (low, high) in zip(points, x_ends, strict=False):
        if all(map(drawable, (px, py, low, high))):
            yield f'<line {kind} x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y(py):.1f}" y2="{y(py):.1f}"/>'
    for (px, py), (low, high) in zip(points, y_ends, strict=False):
        if all(map(drawable, (px, py, low, high))):
            yield f'<line {kind} x1="{x(px):.1f}" x2="{x(px):.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"/>'


def describe(scatter: Scatter) -> str:
    """The points in words, for those who hear them."""
    said = []
    for series, points in list(scatter.series.items())[:_MOST_SAID]:
        told = [f"{number(y)} at {number(x)}" for x, y in points[:_MOST_SAID]]
        more = f" and {len(points) - _MOST_SAID} more" if len(points) > _MOST_SAID else ""
        said.append(f"{series}: {', '.join(told)}{more}.")
    return f"{scatter.y_label} against {scatter.x_label}. {' '.join(said)}"


def swatches(scatter: Scatter) -> list[tuple[str, str]]:
    """The key: see `engram.benchmarks.drawing.svg.keys`."""
    found = [(marker(index, 17, 6, 4), series) for index, series in enumerate(scatter.series)]
    if scatter.diagonal:
        found.append(('<line class="diagonal" x1="1" x2="33" y1="6" y2="6"/>', "both the same"))
    return found
