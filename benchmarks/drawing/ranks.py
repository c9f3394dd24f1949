"""Mean ranks on a line as SVG text, bars over those that do not differ: Demsar's critical difference diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engram.benchmarks.drawing.heatmap import short
from engram.benchmarks.drawing.numbers import number
from engram.benchmarks.drawing.svg import COLOURS, WIDTH, begin, marker, svg_text, tick_text

_LEFT, _RIGHT, _TOP, _BAR, _ROW = 26, 26, 66, 11, 22
_MOST_LETTERS = 46


@dataclass(frozen=True)
class RankLine:
    """Names with their mean ranks, the best first; ``alike`` are stretches of places that do not differ.

    ``distance`` is the critical difference.
    """

    title: str
    names: Sequence[str]
    ranks: Sequence[float]
    distance: float
    alike: Sequence[tuple[int, int]]


def rank_line(line: RankLine, name: str) -> str:
    """The diagram as one ``<svg>``; ``name`` must be unique in the page and plain (it becomes an id)."""
    most = max(len(line.names), 2)
    axis = _TOP
    rows = axis + 16 + _BAR * len(line.alike) + 14

    def x(rank: float) -> float:
        return _LEFT + (rank - 1) / (most - 1) * (WIDTH - _LEFT - _RIGHT)

    parts = [begin(name, line.title, describe(line), rows + _ROW * len(line.names) + 6)]
    reach = min(line.distance, most - 1)
    parts.append(_stroke("error", x(1), x(1 + reach), 16))
    parts.append(svg_text("tick", x(1), 32, f"critical difference {number(line.distance)}", "start"))
    parts.append(_stroke("axis", x(1), x(most), axis))
    stride = -(-most // 12)
    ticks = [float(rank) for rank in range(1, most + 1, stride)]
    for tick in ticks:
        parts.append(f'<line class="axis" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{axis - 5}" y2="{axis}"/>')
        parts.append(svg_text("tick", x(tick), axis - 8, tick_text(tick, ticks), "middle"))
    for row, (first, last) in enumerate(line.alike):
        y = axis + 16 + row * _BAR
        parts.append(_stroke("whisker alike", x(line.ranks[first]) - 3, x(line.ranks[last]) + 3, y))
    for place, (label, rank) in enumerate(zip(line.names, line.ranks, strict=True)):
        y, right = rows + place * _ROW, x(rank) > WIDTH / 2
        parts.append(f'<line class="grid" x1="{x(rank):.1f}" x2="{x(rank):.1f}" y1="{axis}" y2="{y}"/>')
        parts.append(f"<g>{marker(place % COLOURS, x(rank), axis)}</g>")
        text = f"{short(label, _MOST_LETTERS)} {number(rank)}"
        parts.append(svg_text("name halo", x(rank) + (-6 if right else 6), y + 4, text, "end" if right else "start"))
    return "".join([*parts, "</svg>"])


def _stroke(kind: str, x1: float, x2: float, y: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'


def describe(line: RankLine) -> str:
    """The diagram in words, for those who hear it.

    >>> describe(RankLine("t", ["a", "b"], [1.0, 2.0], 1.5, [(0, 1)]))
    'Mean ranks: a 1.0000, b 2. Critical difference 1.5000. No difference shown: a to b.'
    """
    said = ", ".join(f"{name} {number(rank)}" for name, rank in zip(line.names, line.ranks, strict=True))
    bars = "; ".join(f"{line.names[first]} to {line.names[last]}" for first, last in line.alike)
    alike = f" No difference shown: {bars}." if bars else ""
    return f"Mean ranks: {said}. Critical difference {number(line.distance)}.{alike}"
