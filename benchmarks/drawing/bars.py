"""Bars as SVG text: a row for each name, so that long names can be read."""

from __future__ import annotations

from html import escape

from engram.backbone.contract import Bars
from engram.benchmarks.drawing.heatmap import short
from engram.benchmarks.drawing.numbers import number
from engram.benchmarks.drawing.svg import COLOURS, LETTER, WIDTH, begin, drawable, linear_axis, svg_text, tick_text

_TOP, _RIGHT, _BOTTOM = 8, 22, 46
_MOST_LETTERS, _ROW = 20, 20.0
_MOST_SAID = 12


def bar_chart(bars: Bars, name: str) -> str:
    """The bars as one ``<svg>``; ``name`` must be unique in the page and plain (it becomes an id)."""
    count = max(len(bars.series), 1)
    row = max(_ROW if len(bars.names) <= 24 else 13.0, 9.0 * count + 5)
    thick = (row - 5) / count
    left = 14 + LETTER * min(max(map(len, bars.names), default=0), _MOST_LETTERS)
    values = [value for series in bars.series.values() for value in series]
    axis = linear_axis([0.0, *values, *(end for each in bars.ranges.values() for pair in each for end in pair)], most=7)
    low = axis.low if min(filter(drawable, values), default=0.0) < 0 else 0.0
    foot = _TOP + row * len(bars.names)

    def x(value: float) -> float:
        return left + (value - low) / (axis.high - low) * (WIDTH - left - _RIGHT)

    parts = [begin(name, bars.title, describe(bars), foot + _BOTTOM)]
    for tick in (tick for tick in axis.ticks if tick >= low):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{foot:.1f}"/>')
        parts.append(svg_text("tick", x(tick), foot + 16, tick_text(tick, axis.ticks), "middle"))
    for index, label in enumerate(bars.names):
        top = _TOP + index * row
        parts.append(svg_text("tick", left - 7, top + row / 2 + 4, short(label, _MOST_LETTERS), "end"))
        for place, (series, held) in enumerate(bars.series.items()):
            if not drawable(held[index]):
                continue
            begun, ended = sorted((x(0.0), x(held[index])))
            y, colour = top + 2.5 + place * thick, f"c{place % COLOURS}"
            said = f"{label}{f', {series}' if count > 1 else ''}: {number(held[index])}"
            parts.append(
                f'<rect class="bar {colour}" x="{begun:.1f}" y="{y:.1f}" width="{ended - begun:.1f}" '
                f'height="{max(thick - 1, 1):.1f}"><title>{escape(said)}</title></rect>'
            )
            ends = bars.ranges.get(series, ())
            if ends and all(map(drawable, ends[index])):
                (a, b), middle = map(x, ends[index]), y + max(thick - 1, 1) / 2
                parts.append(f'<line class="error" x1="{a:.1f}" x2="{b:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>')
    parts.append(f'<line class="axis" x1="{x(0.0):.1f}" x2="{x(0.0):.1f}" y1="{_TOP}" y2="{foot:.1f}"/>')
    parts.append(svg_text("label", (left + WIDTH - _RIGHT) / 2, foot + 38, bars.y_label, "middle"))
    return "".join([*parts, "</svg>"])


def describe(bars: Bars) -> str:
    """The bars in words, for those who hear them."""
    said = []
    for series, held in bars.series.items():
        told = [f"{name} {number(value)}" for name, value in zip(bars.names, held, strict=True)]
        more = f" and {len(told) - _MOST_SAID} more" if len(told) > _MOST_SAID else ""
        said.append(f"{series}: {', '.join(told[:_MOST_SAID])}{more}.")
    return f"{bars.y_label} by {bars.x_label}. {' '.join(said)}"


def swatches(bars: Bars) -> list[tuple[str, str]]:
    """The key, for several series: see `engram.benchmarks.drawing.svg.keys`."""
    return [
        (f'<rect class="bar c{index % COLOURS}" x="5" y="1" width="24" height="10"/>', series)
        for index, series in enumerate(bars.series)
    ]
