"""What a report is about, gathered from the folders of its trials."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engram.backbone.errors import UserError, must, nearest
from engram.benchmarks.compare.comparison import Comparison, compare_outcomes
from engram.benchmarks.compare.groups import label
from engram.benchmarks.records.outcomes import from_sweep
from engram.benchmarks.records.trials import Record, Sweep, read_sweep, sweep_names, trial_names


@dataclass(frozen=True)
class Subject:
    """What a report is about: a sweep, or one trial dressed as a sweep of one."""

    name: str
    sweep: Sweep
    single: bool
    comparison: Comparison | None
    """None as long as no trial is done."""

    @property
    def records(self) -> list[Record]:
        return self.sweep.records

    @property
    def done(self) -> list[Record]:
        return [record for record in self.records if record.status == "done"]

    @cached_property
    def groups(self) -> dict[str, list[Record]]:
        """Trials by group, in the order of the leaderboard; groups without a result come last."""
        axes = tuple(self.sweep.axes)
        found: dict[str, list[Record]] = {}
        if self.comparison is not None:
            found = {group.label: [] for group in self.comparison.groups}
        for record in self.records:
            found.setdefault(label(axes, record.config), []).append(record)
        return found


def find(out: Path, name: str) -> Subject:
    """The sweep called ``name``, or else the trial."""
    if name in sweep_names(out):
        sweep = read_sweep(out, name)
        return Subject(name, sweep, single=False, comparison=_comparison(sweep))
    trials = trial_names(out)
    found = [trial for trial in trials if name and trial.startswith(name)]
    if len(found) != 1:
        known = [*sweep_names(out), *trials]
        hint = nearest(name, known) if known else "Run something first: engram quickstart"
        raise must("report", "about one sweep or one trial of this folder", repr(name), hint)
    sweep = Sweep(found[0], {}, [], [Record(out / "trials" / found[0])])
    return Subject(found[0], sweep, single=True, comparison=_comparison(sweep))


def _comparison(sweep: Sweep) -> Comparison | None:
    try:
        return compare_outcomes(from_sweep(sweep))
    except UserError:
        return None  # nothing is done yet: the report shows how far it is
