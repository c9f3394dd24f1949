"""Shows a comparison on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engram.benchmarks.compare.sheets import notes, sheets
from engram.benchmarks.drawing.tables import fold
from engram.benchmarks.drawing.tables import render as table

if TYPE_CHECKING:
    from rich.console import Console

    from engram.benchmarks.compare.comparison import Comparison


def render(comparison: Comparison, console: Console) -> None:
    """Print the groups, the paired differences, what is absent, and the gate."""
    from rich.text import Text

    width = console.width if console.is_terminal else None
    lines = []
    for sheet in sheets(comparison):
        rows = [dict(zip(sheet.head, row, strict=True)) for row in sheet.rows]
        lines.append(table(sheet.title, rows, width, sheet.right))
    lines += notes(comparison)
    if comparison.gate is not None:
        said = "; ".join(comparison.gate.reasons)
        state = f"failed: {said}" if said else "passed"
        lines.append(f"gate: fail if {comparison.gate.condition}: {state}")
    for line in lines:
        shown = line if "\n" in line or width is None else "\n".join(fold(line, width))
        console.print(Text(shown), soft_wrap=True)
