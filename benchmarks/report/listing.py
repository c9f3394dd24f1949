"""Every trial: what it was told, what it keeps, and those that are not counted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from engram.benchmarks.drawing.numbers import seconds
from engram.benchmarks.planning.naming import record_words
from engram.benchmarks.records.trials import Record
from engram.benchmarks.report.html import MOST_ROWS, details, duration, facts, more, paragraph, section, table
from engram.benchmarks.report.subject import Subject
from engram.benchmarks.report.words import amount, unit_of

_MOST_LINES = 200
"""Of a trial's own table."""
_MOST_TOLD = 200
"""Trials that are told in full."""


def _told(groups: Mapping[str, Sequence[Record]]) -> list[tuple[str, Record]]:
    """The trials of some groups that are told in full, with their groups, the best first."""
    pairs = ((label, record) for label, records in groups.items() for record in records)
    return list(itertools.islice(pairs, _MOST_TOLD))


def _untold(subject: Subject) -> str:
    return more(subject.records, "trials", _MOST_TOLD)


def tables(subject: Subject) -> str:
    """The trials' own tables, folded away: one entry per name, with the table of every trial."""
    held: dict[str, list[str]] = {}
    for label, record in _told(subject.tested):
        for name, rows in (record.result.get("tables") or {}).items():
            where = name if subject.single else f"{label}, seed {record.seed}"
            held.setdefault(name, []).append(one_table(where, rows))
    parts = [details(name, *drawn) for name, drawn in held.items()]
    return section("Tables", "tables", *parts, _untold(subject)) if parts else ""


def one_table(caption: str, rows: Sequence[dict[str, object]]) -> str:
    head = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[row.get(key) for key in head] for row in rows[:_MOST_LINES]]
    left = len(rows) - len(cells)
    note = paragraph(f"{left} more rows are in result.json.", "note") if left > 0 else ""
    return table(caption, head, cells) + note


def absent(subject: Subject) -> str:
    """Trials that are not counted: never dropped silently."""
    lost = [record for record in subject.records if record.status != "done"]
    if not lost:
        return ""
    rows = [[record.trial, " ".join(record_words(record)), record.status, record.why] for record in lost[:MOST_ROWS]]
    head = ("trial", "what", "state", "why")
    return section("Not counted", "absent", table("Trials without a result", head, rows), more(lost, "trials"))


def trials(subject: Subject) -> str:
    """A line for every trial; configuration and provenance of the first ones."""
    parts = []
    metric = None if subject.comparison is None else subject.comparison.metric
    for label, record in _told(subject.groups):
        said = [record.trial[:12], *([] if subject.single else [label]), f"seed {record.seed}", record.status]
        if metric is not None and metric in record.metrics:
            said.append(f"{metric} {amount(record.metrics[metric], unit_of(record.experiment, metric))}")
        parts.append(details(" \N{MIDDLE DOT} ".join(said), trial_facts(record)))
    lines = "" if subject.single else _lines(subject, metric)
    return section("Trials", "trials", lines, *parts, _untold(subject))


def _lines(subject: Subject, metric: str | None) -> str:
    fate = ["given up"] if subject.sweep.given_up else []
    head = ("trial", "group", "seed", "state", *([] if metric is None else [metric]), "time", *fate)
    rows = list(itertools.islice(_rows(subject, metric), MOST_ROWS))
    return table("All trials", head, rows) + more(subject.records, "trials")


def _rows(subject: Subject, metric: str | None) -> Iterator[list[object]]:
    for label, records in subject.groups.items():
        for record in records:
            score = [] if metric is None else [record.metrics.get(metric)]
            fates = subject.sweep.given_up
            fate = [fates.get(record.trial, "")] if fates else []
            yield [record.trial, label, record.seed, record.status, *score, duration(record.seconds), *fate]


def trial_facts(record: Record) -> str:
    inputs = {f"input: {role}": trial for role, trial in record.about.get("inputs", {}).items()}
    artifacts = {f"artifact: {name}": path for name, path in (record.result.get("artifacts") or {}).items()}
    about = {"trial": record.trial, "experiment": record.experiment, "version": record.about.get("version"), **inputs}
    times = {"time": seconds(record.seconds), **artifacts}
    return (
        f"<h3>Configuration</h3>{facts({**about, **times, **record.config})}"
        f"<h3>Provenance</h3>{facts({key.removeprefix('facts.'): value for key, value in record.provenance.items()})}"
    )
