"""A comparison as tables of text, the same on a terminal, in Markdown and in LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engram.benchmarks.compare.comparison import Comparison
from engram.benchmarks.compare.groups import MOST_GROUPS
from engram.benchmarks.compare.tasks import Tasks
from engram.benchmarks.drawing.numbers import number, p_value, seconds, signed, span

_GROUPS = ("mean", "95 % interval", "n", "min", "max", "seconds")
_PAIRS = ("difference", "95 % interval", "seeds", "p", "p (corrected)")
_TASKS = ("interquartile mean", "95 % interval", "mean rank", "P(best is better)", "95 % interval of it")


@dataclass(frozen=True)
class Sheet:
    """A table; ``right`` are the columns that stand to the right."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: tuple[str, ...]


def sheets(comparison: Comparison) -> list[Sheet]:
    """Groups, groups over tasks, and paired differences, as far as there are any."""
    found = [_groups(comparison)]
    if comparison.tasks is not None:
        found.append(_tasks(comparison.tasks))
    if len(comparison.groups) > 1:
        found.append(_pairs(comparison))
    return found


def _groups(comparison: Comparison) -> Sheet:
    rows = []
    for group in comparison.groups:
        found = group.interval
        ends = number(group.statistic("min")), number(group.statistic("max"))
        cells = number(found.mean), span(found.low, found.high, found.n), str(found.n), *ends, seconds(group.seconds)
        rows.append((group.label, *cells))
    return Sheet(comparison.title, (", ".join(comparison.by) or "group", *_GROUPS), rows, _GROUPS)


def _pairs(comparison: Comparison) -> Sheet:
    rows = []
    for pair in comparison.against_best():
        found = pair.paired.difference
        ends = span(found.low, found.high, found.n)
        ps = p_value(pair.paired.p), p_value(pair.p)
        rows.append((pair.group, signed(found.mean), ends, str(found.n), *ps, pair.verdict))
    return Sheet(f"paired by seed, against {comparison.baseline}", ("group", *_PAIRS, "verdict"), rows, _PAIRS)


def _tasks(tasks: Tasks) -> Sheet:
    rows = []
    for each in tasks.standings:
        behind = each.behind
        better = ("-", "-") if behind is None else (number(behind.mean), span(behind.low, behind.high, behind.n))
        ends = span(each.typical.low, each.typical.high, each.typical.n)
        rows.append((each.group, number(each.typical.mean), ends, number(each.rank), *better))
    title = f"over {len(tasks.names)} tasks ({tasks.option})"
    return Sheet(title, ("group", *_TASKS), rows, _TASKS)


def notes(comparison: Comparison) -> list[str]:
    """What must be said beside the tables, a line each."""
    found = []
    if comparison.oracle:
        found.append("The best row was chosen by its test score (oracle selection): its score is optimistic.")
    if comparison.tasks is not None:
        found += of_tasks(comparison.tasks)
    if comparison.pairs:
        found.append(f"p: exact sign flips, two-sided; {correction(comparison)}.")
    return found + [f"not counted: {trial.trial} ({trial.status}) {trial.why}" for trial in comparison.absent]


def correction(comparison: Comparison) -> str:
    """How many tests the p-values are corrected for, and how."""
    count = len(comparison.groups)
    pairs = count * (count - 1) // 2
    method = "Holm" if count <= MOST_GROUPS else "Bonferroni, of which those with the best are shown,"
    return f"{method} over {pairs} pair{'s' if pairs > 1 else ''}"


def of_tasks(tasks: Tasks) -> list[str]:
    """What the tests of ranks say, and who was left out, a line each."""
    found = [f"{tasks.verdict}."]
    found += [f"no difference of ranks shown: {', '.join(names)}" for names in tasks.alike()]
    if tasks.left_out:
        found.append(f"without a score on every task, or beyond the best {MOST_GROUPS}: {', '.join(tasks.left_out)}")
    return found
