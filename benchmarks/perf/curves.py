"""Rows measured at several numbers of steps, as charts: ``perf.html`` beside ``perf.json``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from engram.benchmarks.drawing.svg import Chart, Series, keys, legend, line_chart
from engram.benchmarks.perf.harness import Row
from engram.benchmarks.report.style import STYLE

_PLACE = re.compile(r"^(?P<before>.*)/T(?P<steps>\d+)/(?P<what>.*)$")


def page(rows: Sequence[Row], about: str) -> str | None:
    """One chart for every measure that was taken at several T, ours and the peers' in it; None where there is none."""
    drawn = charts(rows)
    if not drawn:
        return None
    figures = ""
    for index, chart in enumerate(drawn):
        inner = (
            f"<figcaption>{escape(chart.title)}</figcaption>{line_chart(chart, f'perf-{index}')}{legend(keys(chart))}"
        )
        figures += f"<figure>{inner}</figure>"
    head = f'<meta charset="utf-8"><title>engram: make perf</title><style>{STYLE}</style>'
    body = f'<main><h1>make perf</h1><p class="what">{escape(about)}</p><div class="charts">{figures}</div></main>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def charts(rows: Sequence[Row]) -> list[Chart]:
    """Rows called ``BEFORE/T<steps>/WHAT[-VARIANT]`` as lines over T; variants share the chart of what they vary."""
    lines: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        found = _PLACE.match(row.name)
        if found is None:
            continue
        what, _, variant = found["what"].partition("-checkpointed")
        held = lines.setdefault((f"{found['before']}: {what}", row.unit), {})
        steps = float(found["steps"])
        checkpointed = found["what"] != what
        held.setdefault(f"ours, checkpointed{variant}" if checkpointed else "ours", []).append((steps, row.ours))
        if not checkpointed:
            held.setdefault(row.peer_name, []).append((steps, row.peer))
    return [
        Chart(title, "steps T", unit, [Series(name, points) for name, points in held.items()])
        for (title, unit), held in lines.items()
        if any(len(points) > 1 for points in held.values())
    ]
