"""Small pieces of HTML; whatever comes from outside is escaped here, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from engram.benchmarks.drawing.numbers import number
from engram.benchmarks.drawing.tables import word


def cell_text(value: object) -> str:
    """A value of a table as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "\N{EN DASH}"
    return number(value) if isinstance(value, int | float) else word(value)


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table that scrolls sideways on small screens. Columns that hold a number anywhere are set to the right."""
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
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption, quote=True)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


class Number(float):
    """A number with its own way of being written."""

    def __new__(cls, value: float, text: str) -> Number:
        made = super().__new__(cls, value)
        made.text = text
        return made

    text: str


def _row(row: Sequence[object], numeric: Sequence[bool]) -> str:
    parts = []
    for index, value in enumerate(row):
        text = value.text if isinstance(value, Number) else cell_text(value)
        right = " class=num" if numeric[index] else " class=keep" if len(text) < 26 else ""
        tag = 'th scope="row"' if index == 0 else "td"
        parts.append(f"<{tag}{right}>{escape(text)}</{tag.split()[0]}>")
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
