"""Small pieces of HTML; whatever comes from outside is escaped here, once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from engram.benchmarks.drawing.numbers import number, seconds
from engram.benchmarks.drawing.tables import word

MOST_ROWS = 500
"""Of a table; a page of many thousands is slow in any browser."""


def cell_text(value: object) -> str:
    """A value of a table as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "\N{EN DASH}"
    return number(value) if isinstance(value, int | float) else word(value)


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table that scrolls sideways on small screens. Columns that hold a number anywhere are set to the right.

    Where scripts run it is sorted by a click on a column's head (`engram.benchmarks.report.script`).
    """
    numeric = [
        any(isinstance(row[index], int | float) and not isinstance(row[index], bool) for row in rows)
        for index in range(len(columns))
    ]
    heads = "".join(
        f'<th scope="col"{" class=num" if right else ""}>{escape(name)}</th>'
        for name, right in zip(columns, numeric, strict=True)
    )
    body = "".join(_row(row, numeric) for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption, quote=True)}">'
        f"<table{' data-sort' if len(rows) > 1 else ''}>"
        f"<caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


class Number(float):
    """A number with its own way of being written."""

    def __new__(cls, value: float, text: str) -> Number:
        made = super().__new__(cls, value)
        made.text = text
        return made

    text: str


def duration(value: float | None) -> Number | None:
    """Seconds as people write them, sorted by their number."""
    return None if value is None else Number(value, seconds(value))


def more(rows: Sequence[object], what: str, most: int = MOST_ROWS) -> str:
    """Says how many rows a table leaves out, and where they are; "" when none."""
    left = len(rows) - most
    said = f"{left:,} more {what} are left out here; engram compare --to FILE.csv and engram status have them."
    return paragraph(said, "note") if left > 0 else ""


def _row(row: Sequence[object], numeric: Sequence[bool]) -> str:
    parts = []
    for index, value in enumerate(row):
        text = value.text if isinstance(value, Number) else cell_text(value)
        right = " class=num" if numeric[index] else " class=keep" if len(text) < 26 else ""
        tag = 'th scope="row"' if index == 0 else "td"
        told = ""
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            told = f' data-v="{value:.9g}"'  # what it is sorted by
        parts.append(f"<{tag}{right}{told}>{escape(text)}</{tag.split()[0]}>")
    return f"<tr>{''.join(parts)}</tr>"


def facts(values: Mapping[str, object]) -> str:
    """A list of names and values."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(_fact(value))}</dd>" for name, value in values.items())
    return f'<dl class="facts">{items}</dl>'


def _fact(value: object) -> str:
    if value is None or value == "" or value == []:
        return "\N{EN DASH}"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def section(title: str, anchor: str, *parts: str) -> str:
    return f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(title)}</h2>{"".join(parts)}</section>'


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{f' class={kind}' if kind else ''}>{escape(text)}</p>"


def details(summary: str, *parts: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def code(text: str) -> str:
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'
