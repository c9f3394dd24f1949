"""What the report says in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engram.backbone.contract import Kind
from engram.backbone.measures.intervals import Interval
from engram.benchmarks.compare.comparison import Comparison
from engram.benchmarks.compare.groups import Group, Pair
from engram.benchmarks.compare.stats import seeds_needed
from engram.benchmarks.drawing.numbers import number, p_value, signed
from engram.benchmarks.records.meaning import declared
from engram.benchmarks.records.meaning import subject as subject_of
from engram.benchmarks.records.trials import Record
from engram.benchmarks.report.html import Number
from engram.benchmarks.report.subject import Subject


def amount(value: float | None, unit: str) -> str:
    r"""A number with its unit; fractions as percent.

    >>> amount(0.9712, "fraction"), amount(0.31, "nat")
    ('97.12\xa0%', '0.3100 nat')
    """
    if unit == "fraction":
        return f"{number(None)}" if value is None else f"{100 * value:.2f}\N{NO-BREAK SPACE}%"
    return f"{number(value)} {unit}".strip() if unit != "count" else number(value)


def unit_of(experiment: str, metric: str) -> str:
    promised = declared(experiment).get(metric)
    return promised.unit if promised else ""


def what(subject: Subject) -> str:
    """What was run, in one line."""
    records = subject.records
    experiment = next((record.experiment for record in records if record.experiment != "?"), "?")
    data, networks = (_named(records, kind) for kind in ("datasets", "backbones"))
    on = f" on {' and '.join(data)}" if data else ""
    if subject.single:
        net = f" of {' and '.join(networks)}" if networks else ""
        return f"One trial of {experiment}{net}{on}, seed {records[0].seed}."
    if subject.sweep.objectives:
        by, count = ", ".join(subject.sweep.objectives), len(subject.groups)
        proposals = f"{count} proposal{'s' if count != 1 else ''}"
        return f"A search of {experiment}{on} by {by}: {proposals}, {len(records)} trials."
    kinds = subject_of(experiment)
    cells = [f"{len(values)} {_plural(axis, len(values), kinds)}" for axis, values in subject.sweep.axes.items()]
    seeds = len({record.seed for record in records})
    grid = " \N{MULTIPLICATION SIGN} ".join([*cells, f"{seeds} seed{'s' if seeds != 1 else ''}"])
    return f"A sweep of {experiment}{on}: {grid}, {len(records)} trials."


def _named(records: Sequence[Record], kind: Kind) -> list[str]:
    """What of a kind the trials are about, or those they were made from."""
    about = [(record.origin.config, subject_of(record.origin.experiment)) for record in records]
    found = {config.get(name) for config, kinds in about for name, its in kinds.items() if its == kind}
    return sorted(map(str, found - {None}))


def headline(subject: Subject) -> str:
    """The result in plain words."""
    found = subject.comparison
    if found is None or not found.groups:
        return f"No trial is done yet ({_states(subject)})."
    unit = unit_of(found.experiment, found.metric)
    best = found.groups[0]
    reached = f"{found.metric} = {amount(best.interval.mean, unit)}{_interval(best.interval, unit)}"
    if subject.single:
        return f"The trial reached {found.metric} = {amount(best.interval.mean, unit)}."
    text = f"{_called(best, found)} reached {reached}."
    if len(found.groups) > 1:
        second = found.groups[1]
        pair = found.against_best()[0]
        gap = abs(pair.paired.difference.mean)
        shown = f"{100 * gap:.2f} points" if unit == "fraction" else amount(gap, unit)
        side = "above" if (best.interval.mean > second.interval.mean) else "below"
        text += f" It is {shown} {side} {second.label}, the next best, {_strength(pair, len(found.pairs))}."
    lost = len(subject.records) - len(subject.done)
    if lost:
        text += (
            f" {lost} of {len(subject.records)} trials {'is' if lost == 1 else 'are'} not counted ({_states(subject)})."
        )
    return text


def pair_words(found: Comparison) -> list[list[object]]:
    """Rows of the table of paired differences."""
    rows: list[list[object]] = []
    for pair in found.against_best():
        difference = pair.paired.difference
        ends = [signed(difference.low), signed(difference.high)]
        between = " to ".join(ends) if difference.low is not None else "none"
        shown = Number(difference.mean, signed(difference.mean))
        rows.append([pair.group, shown, between, difference.n, pair.paired.p, pair.p, pair.verdict])
    return rows


def _called(group: Group, found: Comparison) -> str:
    return group.label if found.by else "The sweep"


def _interval(found: Interval, unit: str) -> str:
    seeds = f"{found.n} seed{'s' if found.n != 1 else ''}"
    if found.low is None or found.high is None:
        return f" ({seeds}: no interval)" if found.n == 1 else f" ({seeds})"
    return f" (95 % interval {amount(found.low, unit)} to {amount(found.high, unit)}, {seeds})"


def _strength(pair: Pair, comparisons: int) -> str:
    n = len(pair.paired.seeds)
    if pair.verdict.startswith("too few"):
        return f"but {n} seed{'s' if n != 1 else ''} cannot rule out chance (a test needs {seeds_needed(comparisons)})"
    return {
        "differs": f"which chance does not explain (p = {p_value(pair.p)})",
        "no difference shown": f"which chance may explain (p = {p_value(pair.p)})",
    }.get(pair.verdict, "and no seed is common to both, so nothing is paired")


def _states(subject: Subject) -> str:
    counts: dict[str, int] = {}
    for record in subject.records:
        if record.status != "done":
            counts[record.status] = counts.get(record.status, 0) + 1
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "none planned"


def _plural(axis: str, count: int, kinds: Mapping[str, Kind]) -> str:
    many = "s" if count != 1 else ""
    nouns: Mapping[Kind, str] = {"backbones": f"network{many}", "datasets": f"data set{many}"}
    return nouns[kinds[axis]] if axis in kinds else f"value{many} of {axis}"
