"""Tables as files that other programs read: comma-separated values and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""Rows with the names of their columns in the first line.

    >>> as_csv([{"steps": 1, "accuracy": 0.5}, {"steps": 2, "loss": None}])
    'steps,accuracy,loss\n1,0.5,\n2,,\n'
    """
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A Markdown table with aligned columns.

    >>> print(as_markdown(["network", "mean"], [["mlp", "0.5"], ["a|b", "0.75"]]))
    | network | mean |
    |---------|------|
    | mlp     | 0.5  |
    | a\|b    | 0.75 |
    """
    table = [[_cell(text) for text in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = [f"| {' | '.join(text.ljust(size) for text, size in zip(row, widths, strict=True))} |" for row in table]
    rule = f"|{'|'.join('-' * (size + 2) for size in widths)}|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
