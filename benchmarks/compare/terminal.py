"""Shows a comparison on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engram.benchmarks.drawing.numbers import number, p_value, seconds, signed, span
from engram.benchmarks.drawing.tables import fold
from engram.benchmarks.drawing.tables import render as table

if TYPE_CHECKING:
    from rich.console import Console

    from engram.benchmarks.compare.groups import Comparison

_GROUPS = ("mean", "95 % interval", "n", "min", "max", "seconds")
_PAIRS = ("difference", "95 % interval", "seeds", "p", "p (Holm)")


def render(comparison: Comparison, console: Console) -> None:
    """Print the groups, the paired differences, what is absent, and the gate."""
    from rich.text import Text

    width = console.width if console.is_terminal else None
    rows = []
    for group in comparison.groups:
        found = group.interval
        ends = number(group.statistic("min")), number(group.statistic("max"))
        cells = number(found.mean), span(found.low, found.high, found.n), str(found.n), *ends, seconds(group.seconds)
        rows.append({", ".join(comparison.by) or "group": group.label, **dict(zip(_GROUPS, cells, strict=True))})
    lines = [table(comparison.title, rows, width, _GROUPS)]
    if comparison.oracle:
        lines.append("The best row was chosen by its test score (oracle selection): its score is optimistic.")
    rows = []
    for pair in comparison.against_best():
        found = pair.paired.difference
        cells = (
            signed(found.mean),
            span(found.low, found.high, found.n),
            str(found.n),
            p_value(pair.paired.p),
            p_value(pair.p),
        )
        rows.append({"group": pair.group, **dict(zip(_PAIRS, cells, strict=True)), "verdict": pair.verdict})
    if rows:
        lines.append(table(f"paired by seed, against {comparison.baseline}", rows, width, _PAIRS))
        count = len(comparison.pairs)
        lines.append(f"p: exact sign flips, two-sided; Holm over {count} pair{'s' if count > 1 else ''}.")
    lines += [f"not counted: {trial.trial} ({trial.status}) {trial.why}" for trial in comparison.absent]
    if comparison.gate is not None:
        said = "; ".join(comparison.gate.reasons) or "holds"
        lines.append(f"gate: fail if {comparison.gate.condition}: {said}")
    for line in lines:
        shown = line if "\n" in line or width is None else "\n".join(fold(line, width))
        console.print(Text(shown), soft_wrap=True)
