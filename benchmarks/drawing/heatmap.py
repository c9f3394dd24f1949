"""Tables of numbers as shades of one colour, as SVG text."""

from __future__ import annotations

import math
from html import escape

from engram.backbone.contract import Grid
from engram.benchmarks.drawing.numbers import number

WIDTH = 460
LEFT, TOP, RIGHT, BOTTOM = 66, 12, 14, 46
MOST_WRITTEN = 12  # columns whose values still fit into their cells


def heat_map(grid: Grid, name: str) -> str:
    """The grid as one ``<svg>``; ``name`` must be unique in the page and plain (it becomes an id)."""
    columns, rows = len(grid.columns), len(grid.rows)
    width = (WIDTH - LEFT - RIGHT) / max(columns, 1)
    height = min(34.0, max(10.0, width))
    bottom = TOP + rows * height
    known = [value for row in grid.values for value in row if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    body = [
        f'<svg viewBox="0 0 {WIDTH} {bottom + BOTTOM:.0f}" role="img" aria-labelledby="{name}-t {name}-d">',
        f'<title id="{name}-t">{escape(grid.title)}</title><desc id="{name}-d">{escape(describe(grid))}</desc>',
    ]
    for i, row in enumerate(grid.values):
        for j, value in enumerate(row):
            if math.isfinite(value):
                shade = (value - low) / (high - low) if high > low else 0.5
                body.append(_cell(LEFT + j * width, TOP + i * height, width, height, shade, value, columns))
    stride = math.ceil(columns / 16)
    for j in range(0, columns, stride):
        x = LEFT + (j + 0.5) * width
        place = f'x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle"'
        body.append(f'<text class="tick" {place}>{_said(grid.columns[j])}</text>')
    stride = math.ceil(rows / 24)
    for i in range(0, rows, stride):
        y = TOP + (i + 0.5) * height + 4
        body.append(f'<text class="tick" x="{LEFT - 8}" y="{y:.1f}" text-anchor="end">{_said(grid.rows[i])}</text>')
    middle = TOP + rows * height / 2
    body += [
        f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{bottom + 38:.1f}" text-anchor="middle">'
        f"{escape(grid.x_label)}</text>",
        f'<text class="label" transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(grid.y_label)}</text>",
        "</svg>",
    ]
    return "".join(body)


def _cell(x: float, y: float, width: float, height: float, shade: float, value: float, columns: int) -> str:
    """A rectangle, and its number where there is room."""
    box = (
        f'<rect class="c0 shade" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill-opacity="{0.08 + 0.72 * shade:.2f}"/>'
    )
    if columns > MOST_WRITTEN or height < 16:
        return box
    text = f"{value:.2f}" if columns > 8 else f"{value:.3f}"
    tone = "cell on" if shade > 0.55 else "cell"
    place = f'x="{x + width / 2:.1f}" y="{y + height / 2 + 4:.1f}" text-anchor="middle"'
    return f'{box}<text class="{tone}" {place}>{text}</text>'


def _said(text: str) -> str:
    return escape(text if len(text) <= 9 else text[:8] + "…")


def describe(grid: Grid) -> str:
    """The grid in words, for those who hear it: its last row."""
    last = ", ".join(f"{name}: {number(value)}" for name, value in zip(grid.columns, grid.values[-1], strict=True))
    return f"{grid.y_label} against {grid.x_label}. {grid.y_label} {grid.rows[-1]}: {last}." if grid.rows else ""
