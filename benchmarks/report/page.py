"""The page: sections in the order in which a reader asks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape

from engram.backbone.contract import Scalar
from engram.backbone.measures.intervals import interval
from engram.benchmarks.compare.choosing import tested
from engram.benchmarks.compare.comparison import Comparison
from engram.benchmarks.compare.sheets import of_tasks
from engram.benchmarks.drawing.figures import Drawable, draw, key
from engram.benchmarks.drawing.numbers import p_value, seconds, span
from engram.benchmarks.drawing.svg import Chart, legend
from engram.benchmarks.drawing.tables import typed
from engram.benchmarks.planning.naming import off_default
from engram.benchmarks.records.meaning import declared
from engram.benchmarks.records.trials import Record
from engram.benchmarks.report.across import figures as task_figures
from engram.benchmarks.report.curves import learning_curves
from engram.benchmarks.report.figures import figures
from engram.benchmarks.report.forest import forest, row_words
from engram.benchmarks.report.html import (
    MOST_ROWS,
    Number,
    cell_text,
    code,
    details,
    duration,
    more,
    paragraph,
    section,
    table,
)
from engram.benchmarks.report.listing import absent, tables, trials
from engram.benchmarks.report.naming import Named
from engram.benchmarks.report.script import POLICY, SCRIPT
from engram.benchmarks.report.style import STYLE
from engram.benchmarks.report.subject import MOST_DRAWN, Subject
from engram.benchmarks.report.words import headline, pair_words, unit_of, what


def page(subject: Subject) -> str:
    """The whole file."""
    title = escape(f"{subject.name} \N{MIDDLE DOT} engram")
    body = [
        '<header><p class="brand">engram report</p>',
        f"<h1>{escape(subject.name)}</h1>{paragraph(what(subject), 'what')}",
        f"{paragraph(headline(subject), 'headline')}{tiles(subject)}</header>",
        leaderboard(subject),
        over_tasks(subject),
        objectives(subject),
        undrawn(subject),
        charts("Figures", "figures", figures(subject.drawn)),
        charts("Learning curves", "curves", learning_curves(subject.drawn)),
        tables(subject),
        absent(subject),
        trials(subject),
        reading(subject),
        reproducing(subject),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style></head>\n'
        f"<body><main>{chr(10).join(part for part in body if part)}"
        "<footer>Made by engram from the trials' own files. This page needs no network.</footer></main>"
        f"<script>{SCRIPT}</script></body></html>\n"
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
    named = Named(found.by, found.groups, behind=True)
    rows = []
    for group in found.groups[:MOST_ROWS]:
        ends = span(group.interval.low, group.interval.high, group.interval.n)
        most = [group.statistic("min"), group.statistic("max")]
        said = [group.interval.mean, ends, group.interval.n, *most, duration(group.seconds)]
        rows.append(named.row(group.label, said))
    head = named.head("mean", "95 % interval", "seeds", "lowest", "highest", "time per trial")
    oracle = "The first row was chosen by its test score (oracle selection), so that score is optimistic."
    seen = f"<figcaption>{escape(found.metric)}: every seed, mean and 95 % interval</figcaption>"
    drawn = f"<figure>{seen}{forest(found, 'forest')}</figure>"
    short = f"Long names are cut to their values: {row_words(found)}."
    parts = [
        table(caption, head, rows),
        more(found.groups, "groups"),
        paragraph(oracle, "note") if found.oracle else "",
        drawn,
        paragraph(short, "note") if row_words(found) else "",
        differences(found),
    ]
    return section("Leaderboard", "leaderboard", *parts, other_metrics(subject, found))


def differences(found: Comparison) -> str:
    if len(found.groups) < 2:
        return ""
    named = Named(found.by, found.groups)
    rows = [
        named.row(str(name), [difference, between, n, _p(p), _p(adjusted), said])
        for name, difference, between, n, p, adjusted, said in pair_words(found)[:MOST_ROWS]
    ]
    head = named.head("difference", "95 % interval", "seeds", "p", "p, Holm", "verdict")
    return table(f"Difference to {found.baseline}, paired by seed", head, rows)


def other_metrics(subject: Subject, found: Comparison) -> str:
    """Means of all metrics per group, folded away; test scores of a search of what it chose alone."""
    known = {name for record in subject.done for name in record.metrics}
    names = [name for name in declared(found.experiment) if name in known]  # in the order of their declaration
    names += sorted(known.difference(names))
    hidden = set(tested(found.experiment, names))
    rows, named = [], Named(found.by, found.groups)
    for label, records in list(subject.groups.items())[:MOST_ROWS]:
        shown = [name for name in names if name not in hidden or label in subject.tested]
        values = [
            [record.metrics[name] for record in records if name in {*shown} & {*record.metrics}] for name in names
        ]
        if any(values):
            means = [interval(scores).mean if scores else None for scores in values]
            rows.append(named.row(label, means, records[0].config))
    return details("All metrics", table("Means over seeds", named.head(*names), rows))


def over_tasks(subject: Subject) -> str:
    """Groups over tasks: the table, and figures of ranks and profiles."""
    found = subject.over_tasks
    if found is None or found.tasks is None or not found.tasks.standings:
        return ""
    head = ("group", "interquartile mean", "95 % interval", "mean rank", "P(best is better)", "its 95 % interval")
    rows = []
    for each in found.tasks.standings:
        behind = each.behind
        better = [None, ""] if behind is None else [behind.mean, span(behind.low, behind.high, behind.n)]
        ends = span(each.typical.low, each.typical.high, each.typical.n)
        rows.append([each.group, each.typical.mean, ends, each.rank, *better])
    names = ", ".join(found.tasks.names)
    caption = f"{found.metric} over {len(found.tasks.names)} tasks ({found.tasks.option}: {names})"
    notes = "".join(paragraph(note, "note") for note in of_tasks(found.tasks))
    drawn = pictures("task", task_figures(found, found.tasks))
    return section("Over tasks", "tasks", table(caption, head, rows), notes, drawn)


def objectives(subject: Subject) -> str:
    """Groups by several objectives, and the Pareto front."""
    found = subject.front
    if found is None:
        return ""
    groups = [] if subject.comparison is None else subject.comparison.groups
    named = Named(tuple(subject.sweep.axes), groups)
    rows = [
        named.row(name, [*(group.interval.mean for group in held), on], held[0].options)
        for name, held, on in found.groups
    ]
    head = named.head(*found.objectives, "on the front")
    count = sum(on for *_, on in found.groups)
    caption = f"Means over seeds; {count} of {len(rows)} groups are on the Pareto front: none beats them in everything"
    parts = [table(caption, head, rows[:MOST_ROWS]), more(rows, "groups")]
    return section("Objectives", "objectives", *parts, pictures("front", found.figures()))


def undrawn(subject: Subject) -> str:
    """Says that groups are left out of figures, where they are."""
    left = len(subject.groups) - MOST_DRAWN
    said = f"Only the best {MOST_DRAWN} of {len(subject.groups):,} groups are drawn."
    return paragraph(said, "note") if left > 0 else ""


def charts(title: str, anchor: str, drawn: Sequence[Drawable]) -> str:
    if not drawn:
        return ""
    said = "Lines are means over seeds, bands reach from the lowest to the highest seed."
    banded = any(series.low for chart in drawn if isinstance(chart, Chart) for series in chart.series)
    note = paragraph(said, "note") if banded else ""
    return section(title, anchor, note, pictures(anchor, drawn))


def pictures(anchor: str, drawn: Sequence[Drawable]) -> str:
    """Drawings beside each other, each with its title and its key."""
    shown = []
    for index, chart in enumerate(drawn):
        picture = draw(chart, f"{anchor}-{index}") + legend(key(chart))
        shown.append(f"<figure><figcaption>{escape(chart.title)}</figcaption>{picture}</figure>")
    return f'<div class="charts">{"".join(shown)}</div>'


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
