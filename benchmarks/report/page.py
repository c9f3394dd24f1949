"""The page: sections in the order in which a reader asks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape

from engram.backbone.contract import Scalar
from engram.backbone.measures.intervals import interval
from engram.benchmarks.compare.comparison import Comparison
from engram.benchmarks.drawing.figures import Drawable, draw, key
from engram.benchmarks.drawing.numbers import p_value, seconds, span
from engram.benchmarks.drawing.svg import Chart, legend
from engram.benchmarks.drawing.tables import typed
from engram.benchmarks.planning.naming import off_default, record_words
from engram.benchmarks.records.meaning import declared
from engram.benchmarks.records.trials import Record
from engram.benchmarks.report.curves import learning_curves
from engram.benchmarks.report.figures import figures
from engram.benchmarks.report.forest import forest
from engram.benchmarks.report.html import Number, cell_text, code, details, facts, paragraph, section, table
from engram.benchmarks.report.style import STYLE
from engram.benchmarks.report.subject import Subject
from engram.benchmarks.report.words import amount, headline, pair_words, unit_of, what

_MOST_ROWS = 200


def page(subject: Subject) -> str:
    """The whole file."""
    title = escape(f"{subject.name} \N{MIDDLE DOT} engram")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    body = [
        '<header><p class="brand">engram report</p>',
        f"<h1>{escape(subject.name)}</h1>{paragraph(what(subject), 'what')}",
        f"{paragraph(headline(subject), 'headline')}{tiles(subject)}</header>",
        leaderboard(subject),
        charts("Figures", "figures", figures(subject.groups)),
        charts("Learning curves", "curves", learning_curves(subject.groups)),
        tables(subject),
        absent(subject),
        trials(subject),
        reading(subject),
        reproducing(subject),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{STYLE}</style></head>\n'
        f"<body><main>{chr(10).join(part for part in body if part)}"
        "<footer>Made by engram from the trials' own files. This page needs no network.</footer></main></body></html>\n"
    )


def tiles(subject: Subject) -> str:
    """A few facts at a glance."""
    times = [record.seconds for record in subject.done if record.seconds is not None]
    commits = {str(record.provenance.get("git.commit", ""))[:8] for record in subject.records} - {""}
    dirty = any(record.provenance.get("git.dirty") for record in subject.records)
    data = {str(record.provenance.get("facts.data_sha256", ""))[:8] for record in subject.records} - {""}
    repeated = {record.provenance.get("facts.test_images_in_train") for record in subject.records} - {None, 0}
    shown = {
        "trials done": f"{len(subject.done)} of {len(subject.records)}",
        "working time": seconds(sum(times)) if times else "",
        "code": ", ".join(sorted(commits)) + (" + changes" if dirty else "") if commits else "",
        "data (sha256)": ", ".join(sorted(data)),
        "test images trained on": ", ".join(sorted(map(str, repeated))),
    }
    items = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in shown.items() if value
    )
    return f'<dl class="tiles">{items}</dl>'


def leaderboard(subject: Subject) -> str:
    """Groups, best first, and their differences; for a single trial its metrics."""
    found = subject.comparison
    if found is None:
        return ""
    if subject.single:
        promised = declared(found.experiment)
        rows = [
            [name, value, promised[name].unit if name in promised else ""]
            for name, value in subject.records[0].metrics.items()
        ]
        return section("Results", "results", table("Final metrics", ("metric", "value", "unit"), rows))
    unit = unit_of(found.experiment, found.metric)
    caption = f"{found.metric}{f' ({unit})' if unit else ''}, {found.order}"
    head = (", ".join(found.by) or "group", "mean", "95 % interval", "seeds", "lowest", "highest", "time per trial")
    rows = [
        [
            group.label,
            group.interval.mean,
            span(group.interval.low, group.interval.high, group.interval.n),
            group.interval.n,
            group.statistic("min"),
            group.statistic("max"),
            seconds(group.seconds),
        ]
        for group in found.groups
    ]
    oracle = "The first row was chosen by its test score (oracle selection), so that score is optimistic."
    seen = f"<figcaption>{escape(found.metric)}: every seed, mean and 95 % interval</figcaption>"
    drawn = f"<figure>{seen}{forest(found, 'forest')}</figure>"
    parts = [table(caption, head, rows), paragraph(oracle, "note") if found.oracle else "", drawn, differences(found)]
    return section("Leaderboard", "leaderboard", *parts, other_metrics(subject, found))


def differences(found: Comparison) -> str:
    if len(found.groups) < 2:
        return ""
    head = ("group", "difference", "95 % interval", "seeds", "p", "p, Holm", "verdict")
    rows = [
        [name, difference, between, n, _p(p), _p(adjusted), said]
        for name, difference, between, n, p, adjusted, said in pair_words(found)
    ]
    return table(f"Difference to {found.baseline}, paired by seed", head, rows)


def other_metrics(subject: Subject, found: Comparison) -> str:
    """Means of all metrics per group, folded away."""
    known = {name for record in subject.done for name in record.metrics}
    names = [name for name in declared(found.experiment) if name in known]  # in the order of their declaration
    names += sorted(known.difference(names))
    rows = []
    for label, records in subject.groups.items():
        values = [[record.metrics[name] for record in records if name in record.metrics] for name in names]
        if any(values):
            rows.append([label, *(interval(scores).mean if scores else None for scores in values)])
    return details("All metrics", table("Means over seeds", (", ".join(found.by) or "group", *names), rows))


def charts(title: str, anchor: str, drawn: Sequence[Drawable]) -> str:
    if not drawn:
        return ""
    shown = []
    for index, chart in enumerate(drawn):
        picture = draw(chart, f"{anchor}-{index}") + legend(key(chart))
        shown.append(f"<figure><figcaption>{escape(chart.title)}</figcaption>{picture}</figure>")
    said = "Lines are means over seeds, bands reach from the lowest to the highest seed."
    banded = any(series.low for chart in drawn if isinstance(chart, Chart) for series in chart.series)
    note = paragraph(said, "note") if banded else ""
    return section(title, anchor, note, f'<div class="charts">{"".join(shown)}</div>')


def tables(subject: Subject) -> str:
    """The trials' own tables, folded away: one entry per name, with the table of every trial."""
    held: dict[str, list[str]] = {}
    for label, records in subject.groups.items():
        for record in records:
            for name, rows in (record.result.get("tables") or {}).items():
                where = name if subject.single else f"{label}, seed {record.seed}"
                held.setdefault(name, []).append(one_table(where, rows))
    parts = [details(name, *drawn) for name, drawn in held.items()]
    return section("Tables", "tables", *parts) if parts else ""


def one_table(caption: str, rows: Sequence[dict[str, object]]) -> str:
    head = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[row.get(key) for key in head] for row in rows[:_MOST_ROWS]]
    more = len(rows) - len(cells)
    note = paragraph(f"{more} more rows are in result.json.", "note") if more > 0 else ""
    return table(caption, head, cells) + note


def absent(subject: Subject) -> str:
    """Trials that are not counted: never dropped silently."""
    rows = [
        [record.trial, " ".join(record_words(record)), record.status, record.why]
        for record in subject.records
        if record.status != "done"
    ]
    if not rows:
        return ""
    head = ("trial", "what", "state", "why")
    return section("Not counted", "absent", table("Trials without a result", head, [[*map(str, row)] for row in rows]))


def trials(subject: Subject) -> str:
    """Configuration and provenance of every trial."""
    parts = []
    for label, records in subject.groups.items():
        for record in records:
            said = [record.trial[:12], *([] if subject.single else [label]), f"seed {record.seed}", record.status]
            if subject.comparison is not None and subject.comparison.metric in record.metrics:
                metric = subject.comparison.metric
                said.append(f"{metric} {amount(record.metrics[metric], unit_of(record.experiment, metric))}")
            parts.append(details(" \N{MIDDLE DOT} ".join(said), trial_facts(record)))
    return section("Trials", "trials", *parts)


def trial_facts(record: Record) -> str:
    inputs = {f"input: {role}": trial for role, trial in record.about.get("inputs", {}).items()}
    artifacts = {f"artifact: {name}": path for name, path in (record.result.get("artifacts") or {}).items()}
    about = {"trial": record.trial, "experiment": record.experiment, "version": record.about.get("version"), **inputs}
    times = {"time": seconds(record.seconds), **artifacts}
    return (
        f"<h3>Configuration</h3>{facts({**about, **times, **record.config})}"
        f"<h3>Provenance</h3>{facts({key.removeprefix('facts.'): value for key, value in record.provenance.items()})}"
    )


def reading(subject: Subject) -> str:
    """How to read the numbers."""
    terms = {
        "95 % interval": "Over seeds: where the mean would lie if more seeds were run. Student's t; Wilson's for what "
        "has a least or largest value, so that no interval goes beyond it. One seed has none.",
        "paired by seed": "Groups are compared seed by seed: a seed fixes the order of the data and the first weights.",
        "p": "How often a difference this large would arise if signs were chance: all sign flips, two-sided. Holm's "
        "correction counts every pair of groups, because the best one was not known before.",
        "too few seeds": "With n seeds no p is below 2 / 2^n, so no verdict is possible; run the number it names.",
        "oracle selection": "The best row was picked by looking at test data; choose by validation data to claim it.",
        "bands": "The range from the lowest to the highest seed, not an interval.",
    }
    if subject.single:
        terms = {"one trial": "A single seed says nothing about chance. Sweep over seeds to get an interval."}
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in terms.items())
    return section("How to read this", "reading", f'<dl class="how">{items}</dl>')


def reproducing(subject: Subject) -> str:
    """The command that makes these numbers again."""
    if subject.single:
        return section("How to reproduce it", "reproduce", code(command(subject.records[0])))
    suite = subject.sweep.suite
    parts = [paragraph(f"Save this as {subject.name}.toml:"), code(suite)] if suite else []
    return section("How to reproduce it", "reproduce", *parts, code(f"engram sweep {shlex.quote(subject.name)}.toml"))


def command(record: Record) -> str:
    """What to type for the same trial."""
    return shlex.join(["engram", "run", record.experiment, *typed(_given(record))])


def _given(record: Record) -> dict[str, Scalar]:
    """The options that make a trial what it is and its seed; all it has where its experiment is no longer known."""
    given = off_default(record)
    return record.config if given is None else {"seed": record.seed, **given}


def _p(value: object) -> object:
    return Number(value, p_value(value)) if isinstance(value, float) else cell_text(None)
