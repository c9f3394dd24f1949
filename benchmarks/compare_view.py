"""Shows a comparison on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.numbers import number, p_value, seconds, signed, span

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.compare import Comparison


def render(comparison: Comparison, console: Console) -> None:
    """Print the groups, the paired differences, what is absent, and the gate."""
    from rich.table import Table
    from rich.text import Text

    groups = Table(title=Text(comparison.title), title_justify="left")
    for name, justify in _columns(comparison):
        groups.add_column(name, justify="right" if justify else "left")
    for group in comparison.groups:
        found = group.interval
        ends = number(group.statistic("min")), number(group.statistic("max"))
        cells = [group.label, number(found.mean), span(found), str(found.n), *ends, seconds(group.seconds)]
        groups.add_row(*map(Text, cells))
    console.print(groups)
    if comparison.oracle:
        console.print(Text("The best row was chosen by its test score (oracle selection): its score is optimistic."))
    pairs = comparison.against_best()
    if pairs:
        table = Table(title=Text(f"paired by seed, against {comparison.baseline}"), title_justify="left")
        for name in ("group", "difference", "95 % interval", "seeds", "p", "p (Holm)", "verdict"):
            table.add_column(name, justify="left" if name in ("group", "verdict") else "right")
        for pair in pairs:
            found = pair.paired.difference
            numbers = [signed(found.mean), span(found), str(found.n), p_value(pair.paired.p), p_value(pair.p)]
            table.add_row(*map(Text, [pair.group, *numbers, pair.verdict]))
        console.print(table)
        count = len(comparison.pairs)
        console.print(Text(f"p: exact sign flips, two-sided; Holm over {count} pair{'s' if count > 1 else ''}."))
    for trial in comparison.absent:
        console.print(Text(f"not counted: {trial.trial} ({trial.status}) {trial.why}"))
    if comparison.gate is not None:
        said = "; ".join(comparison.gate.reasons) or "holds"
        console.print(Text(f"gate: fail if {comparison.gate.condition}: {said}"))


def _columns(comparison: Comparison) -> list[tuple[str, bool]]:
    names = ", ".join(comparison.by) or "group"
    numeric = ("mean", "95 % interval", "n", "min", "max", "seconds")
    return [(names, False), *((name, True) for name in numeric)]
