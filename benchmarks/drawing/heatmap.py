"""Tables as shades, as SVG text: numbers in one colour, confusions in two."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from engram.backbone.contract import Confusion, Grid
from engram.benchmarks.drawing.numbers import number
from engram.benchmarks.drawing.svg import LETTER, RIGHT, TOP, WIDTH, begin, svg_text

BOTTOM = 46
MOST_WRITTEN = 12  # columns whose values still fit into their cells
_MOST_LETTERS = 9  # of a row's name
_LEAST_LETTERS = 6  # of a column's name: where there is less room, every other one is left out
_MOST_SAID = 3  # mistakes that are put into words
_BOTH_ENDS = 12  # letters from which on a text keeps its end, too


@dataclass(frozen=True)
class Cell:
    """``shade`` is between 0 and 1; ``colour`` the number of a series' colour."""

    row: int
    column: int
    shade: float
    text: str
    said: str
    colour: int = 0


def heat_map(grid: Grid, name: str) -> str:
    """The grid as one ``<svg>``; ``name`` must be unique in the page and plain (it becomes an id)."""
    known = [value for row in grid.values for value in row if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    cells = [
        Cell(
            i,
            j,
            (value - low) / (high - low) if high > low else 0.5,
            f"{value:.2f}" if len(grid.columns) > 8 else f"{value:.3f}",
            f"{grid.rows[i]}, {grid.columns[j]}: {number(value)}",
        )
        for i, row in enumerate(grid.values)
        for j, value in enumerate(row)
        if math.isfinite(value)
    ]
    return _table(name, grid.title, describe(grid), grid.columns, grid.rows, (grid.x_label, grid.y_label), cells)


def confusion_matrix(confusion: Confusion, name: str) -> str:
    """As `heat_map`: shares of each true class, what was right in another colour than mistakes.

    A shade is the root of a share: mistakes are few, and they are what one looks for.
    """
    cells = []
    for i, row in enumerate(confusion.counts):
        total = sum(row)
        for j, count in enumerate(row):
            if count:
                said = f"{confusion.classes[i]} taken for {confusion.classes[j]}: {count} of {total}"
                cells.append(Cell(i, j, math.sqrt(count / total), str(count), said, 0 if i == j else 1))
    labels = ("predicted class", "true class")
    return _table(name, confusion.title, in_words(confusion), confusion.classes, confusion.classes, labels, cells)


def _table(
    name: str,
    title: str,
    said: str,
    columns: Sequence[str],
    rows: Sequence[str],
    labels: tuple[str, str],
    cells: Iterable[Cell],
) -> str:
    left = 32 + LETTER * min(max(map(len, rows), default=0), _MOST_LETTERS)
    width = (WIDTH - left - RIGHT) / max(len(columns), 1)
    height = min(34.0, max(10.0 if len(rows) <= 24 else 6.0, width))
    bottom = TOP + len(rows) * height
    written = len(columns) <= MOST_WRITTEN and height >= 16
    body = [begin(name, title, said, bottom + BOTTOM)]
    for cell in cells:
        x, y = left + cell.column * width, TOP + cell.row * height
        body.append(
            f'<rect class="c{cell.colour} shade" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill-opacity="{0.08 + 0.72 * cell.shade:.2f}"><title>{escape(cell.said)}</title></rect>'
        )
        if written:
            tone = "cell on" if cell.shade > 0.55 else "cell"
            body.append(svg_text(tone, x + width / 2, y + height / 2 + 4, cell.text, "middle"))
    least = min(max(map(len, columns), default=0), _LEAST_LETTERS)
    stride = max(math.ceil(len(columns) / 16), math.ceil(LETTER * least / width), 1)
    for j in range(0, len(columns), stride):
        letters = int(stride * width / LETTER)  # that fit
        body.append(svg_text("tick", left + (j + 0.5) * width, bottom + 16, short(columns[j], letters), "middle"))
    stride = math.ceil(len(rows) * 13 / max(bottom - TOP, 1))
    for i in range(0, len(rows), max(stride, 1)):
        body.append(svg_text("tick", left - 8, TOP + (i + 0.5) * height + 4, short(rows[i], _MOST_LETTERS), "end"))
    body += [
        svg_text("label", (left + WIDTH - RIGHT) / 2, bottom + 38, labels[0], "middle"),
        f'<g transform="translate(13 {(TOP + bottom) / 2:.1f}) rotate(-90)">',
        svg_text("label", 0, 0, labels[1], "middle"),
        "</g></svg>",
    ]
    return "".join(body)


def short(text: str, letters: int) -> str:
    """A text of at most so many letters, three at least; long ones keep their end, which may be what tells them apart.

    >>> short("airplane", 9), short("aeroplane", 5), short("probably-defective, mono", 20)
    ('airplane', 'aero…', 'probably-defe…, mono')
    """
    letters = max(letters, 3)
    if len(text) <= letters:
        return text
    end = letters // 3 if letters >= _BOTH_ENDS else 0
    return f"{text[: letters - 1 - end]}…{text[len(text) - end :]}"


def describe(grid: Grid) -> str:
    """The grid in words, for those who hear it: its last row."""
    if not grid.rows:
        return ""
    last = ", ".join(f"{name}: {number(value)}" for name, value in zip(grid.columns, grid.values[-1], strict=True))
    return f"{grid.y_label} against {grid.x_label}. {grid.y_label} {grid.rows[-1]}: {last}."


def in_words(confusion: Confusion) -> str:
    """How much was right, and the most frequent mistakes.

    >>> in_words(Confusion(title="t", classes=["cat", "dog"], counts=[[3, 1], [0, 4]]))
    '7 of 8 right. Most often wrong: cat taken for dog, 1.'
    """
    counts = confusion.counts
    wrong = sorted(
        ((count, i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if count and i != j),
        key=lambda found: (-found[0], *found[1:]),
    )
    right = sum(counts[i][i] for i in range(len(counts)))
    told = [f"{confusion.classes[i]} taken for {confusion.classes[j]}, {n}" for n, i, j in wrong[:_MOST_SAID]]
    most = f" Most often wrong: {'; '.join(told)}." if told else ""
    return f"{right} of {sum(map(sum, counts))} right.{most}"
