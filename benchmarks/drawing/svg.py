"""Line charts as SVG text: no script, no outside reference, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

from engram.benchmarks.drawing.numbers import number

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 12, 46
LETTER = 8.2  # how wide one is at most: small screens have larger ones
COLOURS = 8  # .c0 to .c7 in the style sheet
DASHES = ("", "7 4", "2 3", "9 3 2 3", "1 4")
MARKERS = ("circle", "square", "triangle", "diamond", "cross", "ring")
_MOST_MARKERS = 24
_TINY, _HUGE = 1e-100, 1e100  # beyond, arithmetic on the axis itself breaks down

Point = tuple[float, float]
Scale = Literal["linear", "log2"]


@dataclass(frozen=True)
class Series:
    """One line; ``low`` and ``high`` are the edges of the band around it, point for point."""

    name: str
    points: Sequence[Point]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Chart:
    """What to draw. ``lines`` are horizontal references: name, y, and the number of the series they belong to."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    lines: Sequence[tuple[str, float, int]] = field(default_factory=tuple)
    x_scale: Scale = "linear"


@dataclass(frozen=True)
class Axis:
    """A range of values, its ticks, and where a value lies between 0 and 1."""

    low: float
    high: float
    ticks: tuple[float, ...]
    scale: Scale = "linear"

    def place(self, value: float) -> float:
        if self.scale == "log2":
            return (math.log2(value) - self.low) / (self.high - self.low)
        return (value - self.low) / (self.high - self.low)


def drawable(value: float) -> bool:
    return math.isfinite(value) and abs(value) < _HUGE


def linear_axis(values: Iterable[float], most: int = 8, pad: float = 0.05, counts: bool = False) -> Axis:
    """An axis over the finite values; never empty, whatever they are. ``counts``: whole values get whole ticks.

    >>> linear_axis([0.0, 1.0], pad=0.0).ticks
    (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    >>> linear_axis([1.0, 2.0, 3.0], pad=0.0, counts=True).ticks
    (1.0, 2.0, 3.0)
    """
    known = [value if abs(value) > _TINY else 0.0 for value in values if drawable(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = abs(low) * 0.05 or 0.5
        low, high = low - room, high + room
    else:
        low, high = low - pad * (high - low), high + pad * (high - low)
    step = nice_step((high - low) / (most - 1))
    if counts and len(set(known)) > 1 and all(float(value).is_integer() for value in known):
        step = max(step, 1.0)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return Axis(low, high, tuple(float(f"{index * step:.12g}") for index in range(first, last + 1)))


def nice_step(rough: float) -> float:
    """The nearest of 1, 2 or 5 times a power of ten that is not below ``rough``.

    >>> nice_step(0.03), nice_step(7.0)
    (0.05, 10.0)
    """
    power = 10.0 ** math.floor(math.log10(rough))
    return next((power * factor for factor in (1, 2, 5) if power * factor >= rough * (1 - 1e-9)), power * 10)


def log2_axis(values: Iterable[float], most: int = 9) -> Axis:
    """An axis in powers of two over the positive values.

    >>> log2_axis([1, 64]).ticks
    (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    """
    logs = [math.log2(value) for value in values if drawable(value) and value > _TINY]
    low, high = (min(logs), max(logs)) if logs else (0.0, 1.0)
    pad = 0.03 * (high - low) or 0.5
    first, last = math.ceil(low), math.floor(high)
    stride = max(1, math.ceil((last - first + 1) / most))
    ticks = tuple(2.0**exponent for exponent in range(first, last + 1, stride))
    return Axis(low - pad, high + pad, ticks or (2.0 ** ((low + high) / 2),), "log2")


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """A tick with as many places as its axis needs.

    >>> tick_text(0.5, (0.0, 0.25, 0.5)), tick_text(20000.0, (0.0, 20000.0)), tick_text(-1.0, (-1.0, 0.0))
    ('0.50', '20k', '−1')
    """
    largest = max(map(abs, ticks))
    if largest >= 1e9 or 0 < largest < 1e-3:
        text = f"{value:.3g}"
    elif largest >= 1e4:
        divisor, unit = (1e6, "M") if largest >= 1e6 else (1e3, "k")
        text = f"{value / divisor:.6g}{unit if value else ''}"
    else:
        gaps = [f"{tick:.12g}".partition(".")[2] if "e" not in f"{tick:.12g}" else "" for tick in ticks]
        text = f"{value:.{max(map(len, gaps))}f}"
    return text.replace("-", "\N{MINUS SIGN}") if value < 0 else text


def begin(name: str, title: str, said: str, height: float = HEIGHT) -> str:
    """The opening tag with what is said to those who cannot see; ``name`` must be unique in the page and plain."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(said)}</desc>'
    )


def on(x_axis: Axis, y_axis: Axis) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Where values of both axes lie in a drawing of `WIDTH` by `HEIGHT`."""

    def x(value: float) -> float:
        return LEFT + x_axis.place(value) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - y_axis.place(value) * (HEIGHT - TOP - BOTTOM)

    return x, y


def clip(name: str) -> str:
    """Opens a group that shows nothing outside of the axes."""
    return (
        f'<clipPath id="{name}-c"><rect x="{LEFT - 6}" y="{TOP - 6}" width="{WIDTH - LEFT - RIGHT + 12}" '
        f'height="{HEIGHT - TOP - BOTTOM + 12}"/></clipPath><g clip-path="url(#{name}-c)">'
    )


def line_chart(chart: Chart, name: str) -> str:
    """The chart as one ``<svg>``; ``name`` must be unique in the page and plain (it becomes an id)."""
    x_axis, y_axis = axes_of(chart)
    x, y = on(x_axis, y_axis)
    body = [
        begin(name, chart.title, describe(chart)),
        *frame(chart.x_label, chart.y_label, x_axis, y_axis),
        clip(name),
        *(band(series, index, x, y, x_axis) for index, series in enumerate(chart.series)),
        *(reference(text, value, index, y) for text, value, index in chart.lines if drawable(value)),
        *(curve(series, index, x, y, x_axis) for index, series in enumerate(chart.series)),
        "</g>",
        *reference_labels(chart, y),
        "</svg>",
    ]
    return "".join(body)


def axes_of(chart: Chart) -> tuple[Axis, Axis]:
    xs = [point[0] for series in chart.series for point in series.points]
    ys = [point[1] for series in chart.series for point in series.points]
    ys += [value for series in chart.series for value in (*series.low, *series.high)]
    ys += [value for _, value, _ in chart.lines]
    x_axis = log2_axis(xs) if chart.x_scale == "log2" else linear_axis(xs, most=7, pad=0.0, counts=True)
    return x_axis, linear_axis(ys)


def frame(x_label: str, y_label: str, x_axis: Axis, y_axis: Axis) -> list[str]:
    """Grid lines, tick labels and axis labels."""
    x, y = on(x_axis, y_axis)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in y_axis.ticks:
        at = y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(svg_text("tick", LEFT - 7, at + 4, tick_text(tick, y_axis.ticks), "end"))
    for tick in x_axis.ticks:
        at = x(tick)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(svg_text("tick", at, bottom + 17, tick_text(tick, x_axis.ticks), "middle"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(svg_text("label", (LEFT + right) / 2, HEIGHT - 8, x_label, "middle"))
    turned = f'<g transform="translate(13 {(TOP + bottom) / 2}) rotate(-90)">'
    parts.append(f"{turned}{svg_text('label', 0, 0, y_label, 'middle')}</g>")
    return parts


def svg_text(kind: str, x: float, y: float, text: str, anchor: str) -> str:
    """One piece of writing, escaped."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def usable(series: Series, x_axis: Axis) -> list[list[int]]:
    """Runs of consecutive drawable points, by index: what is not a number is a gap."""
    runs: list[list[int]] = [[]]
    for index, (x, y) in enumerate(series.points):
        if drawable(x) and drawable(y) and (x_axis.scale == "linear" or x > _TINY):
            runs[-1].append(index)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def band(series: Series, index: int, x: Callable[[float], float], y: Callable[[float], float], x_axis: Axis) -> str:
    if not series.low:
        return ""
    shapes = []
    for run in usable(series, x_axis):
        edge = [(x(series.points[i][0]), y(series.low[i])) for i in run if drawable(series.low[i])]
        edge += [(x(series.points[i][0]), y(series.high[i])) for i in reversed(run) if drawable(series.high[i])]
        if len(run) > 1:
            shapes.append(f'<polygon class="band c{index % COLOURS}" points="{_path(edge)}"/>')
    return "".join(shapes)


def curve(series: Series, index: int, x: Callable[[float], float], y: Callable[[float], float], x_axis: Axis) -> str:
    """The line and its markers; each marker tells its values when pointed at."""
    parts = []
    runs = usable(series, x_axis)
    for run in runs:
        if len(run) > 1:
            places = _path((x(series.points[i][0]), y(series.points[i][1])) for i in run)
            parts.append(f'<polyline class="line c{index % COLOURS}" {dash(index)} points="{places}"/>')
    drawn = [i for run in runs for i in run]
    stride = max(1, math.ceil(len(drawn) / _MOST_MARKERS))
    for i in drawn[::stride]:
        px, py = series.points[i]
        said = f"{series.name}: {number(py)} at {number(px)}"
        parts.append(f"<g>{marker(index, x(px), y(py))}<title>{escape(said)}</title></g>")
    return "".join(parts)


def dash(index: int) -> str:
    pattern = DASHES[(index + index // COLOURS) % len(DASHES)]
    return f'stroke-dasharray="{pattern}"' if pattern else ""


def marker(index: int, x: float, y: float, size: float = 3.2) -> str:
    """A shape of its own for each of a few neighbours, for eyes and printers that see no colour."""
    shape, colour = MARKERS[(index + index // COLOURS) % len(MARKERS)], f"c{index % COLOURS}"
    if shape in ("circle", "ring"):
        return f'<circle class="{"ring" if shape == "ring" else "dot"} {colour}" cx="{x:.1f}" cy="{y:.1f}" r="{size}"/>'
    corners = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "triangle": [(0, -1.25), (1.2, 0.95), (-1.2, 0.95)],
        "diamond": [(0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)],
        "cross": [
            *((-1.3, -0.5), (-0.5, -0.5), (-0.5, -1.3), (0.5, -1.3), (0.5, -0.5), (1.3, -0.5)),
            *((1.3, 0.5), (0.5, 0.5), (0.5, 1.3), (-0.5, 1.3), (-0.5, 0.5), (-1.3, 0.5)),
        ],
    }[shape]
    return f'<polygon class="dot {colour}" points="{_path((x + dx * size, y + dy * size) for dx, dy in corners)}"/>'


def reference(text: str, value: float, index: int, y: Callable[[float], float]) -> str:
    at = f"{y(value):.1f}"
    return (
        f'<line class="reference c{index % COLOURS}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}">'
        f"<title>{escape(text)}: {number(value)}</title></line>"
    )


def reference_labels(chart: Chart, y: Callable[[float], float]) -> list[str]:
    """Names of the reference lines at the left, where curves against steps are low; the legend has those left out."""
    parts: list[str] = []
    taken: list[float] = []
    for text, value, _ in chart.lines:
        if not drawable(value):
            continue
        at = y(value) + 13 if y(value) < TOP + 14 else y(value) - 5
        if all(abs(at - other) >= 14 for other in taken):
            taken.append(at)
            parts.append(f'<text class="tick halo" x="{LEFT + 5}" y="{at:.1f}">{escape(text)}</text>')
    return parts


def describe(chart: Chart) -> str:
    """The chart in words, for those who cannot see it."""
    said = [f"{chart.y_label} against {chart.x_label}."]
    for series in chart.series[:12]:
        known = [point for point in series.points if all(map(math.isfinite, point))]
        if known:
            (x0, y0), (x1, y1) = known[0], known[-1]
            said.append(f"{series.name}: from {number(y0)} at {number(x0)} to {number(y1)} at {number(x1)}.")
    if len(chart.series) > 12:
        said.append(f"And {len(chart.series) - 12} more.")
    said += [f"{text}: {number(value)}." for text, value, _ in chart.lines[:12]]
    return " ".join(said)


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """The key below a drawing (see `keys`), as a list that wraps and, when long, scrolls."""
    long = ' class="legend long" tabindex="0"' if len(entries) > 12 else ' class="legend"'
    key = '<svg viewBox="0 0 34 12" class="key" aria-hidden="true">'
    items = "".join(f"<li>{key}{drawing}</svg>{escape(text)}</li>" for drawing, text in entries)
    return f"<ul{long}>{items}</ul>" if len(entries) > 1 else ""


def keys(chart: Chart) -> list[tuple[str, str]]:
    """For every line of the chart what it looks like, drawn in 34 x 12, and what it is."""
    entries = [(swatch(index), series.name) for index, series in enumerate(chart.series)]
    return entries + [
        (f'<line class="reference c{index % COLOURS}" x1="1" x2="33" y1="6" y2="6"/>', f"{text} {number(value)}")
        for text, value, index in chart.lines
    ]


def swatch(index: int) -> str:
    """A line with its marker, in 34 x 12."""
    line = f'<line class="line c{index % COLOURS}" {dash(index)} x1="1" x2="33" y1="6" y2="6"/>'
    return line + marker(index, 17, 6)


def _path(points: Iterable[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
