"""Plain tables for terminals and logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def render(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as aligned columns under a title; numbers stand to the right.

    >>> print(render("scores", [{"network": "mlp", "accuracy": 0.5}, {"network": "lenet5", "accuracy": 0.98765432}]))
    scores
      network  accuracy
      mlp           0.5
      lenet5     0.9877
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    right = [all(_is_number(row.get(column)) for row in rows) for column in columns]

    def line(texts: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(texts, widths, right, strict=True)
        ]
        return ("  " + "  ".join(padded)).rstrip()

    return "\n".join([*([title] if title else []), *map(line, [columns, *cells] if columns else [])])


def cell(value: Any) -> str:
    """One value in few characters.

    >>> cell(0.123456), cell(123456.7), cell(None), cell(True)
    ('0.1235', '123456.7', '-', 'yes')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.1f}"
    return word(value)


def word(value: Any) -> str:
    """A value as one writes it on the command line.

    >>> word(["si", "er"]), word(0.1)
    ('si,er', '0.1')
    """
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
