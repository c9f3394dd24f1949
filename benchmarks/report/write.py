"""Writes a report to its place in the output folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engram.benchmarks.report.page import page
from engram.benchmarks.report.subject import find


def write_report(out: Path, name: str, objectives: Sequence[str] = (), tasks: str | None = None) -> Path:
    """Write ``out/reports/NAME.html`` about the sweep or the trial called ``name`` (a trial: its id, or its beginning).

    ``objectives`` and ``tasks``: see `engram.benchmarks.report.subject.find`.

    Raises:
        UserError: nothing is called so.
    """
    subject = find(out, name, objectives, tasks)
    path = out / "reports" / f"{subject.name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    fresh.write_text(page(subject), encoding="utf-8", errors="backslashreplace")  # a path may be no text
    fresh.replace(path)
    return path
