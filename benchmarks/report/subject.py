"""What a report is about, gathered from the folders of its trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engram.backbone.errors import UserError, must, nearest
from engram.benchmarks.compare.choosing import look_through
from engram.benchmarks.compare.comparison import Comparison, compare_outcomes
from engram.benchmarks.compare.groups import label
from engram.benchmarks.compare.wanted import Wanted
from engram.benchmarks.drawing.tables import word
from engram.benchmarks.records.meaning import subject
from engram.benchmarks.records.outcomes import from_sweep
from engram.benchmarks.records.trials import Record, Sweep, read_sweep, sweep_names, trial_names
from engram.benchmarks.report.fronts import Front, front

MOST_DRAWN = 40
"""Groups of a sweep that are drawn and told in full."""


@dataclass(frozen=True)
class Subject:
    """What a report is about: a sweep, or one trial dressed as a sweep of one."""

    name: str
    sweep: Sweep
    single: bool
    comparison: Comparison | None
    """None as long as no trial is done."""
    over_tasks: Comparison | None = None
    """The same over tasks, where there are several; groups are made without the option that tells them apart."""
    front: Front | None = None
    """Groups by several objectives, where there are any."""

    @property
    def records(self) -> list[Record]:
        return self.sweep.records

    @property
    def done(self) -> list[Record]:
        return [record for record in self.records if record.status == "done"]

    @property
    def drawn(self) -> dict[str, list[Record]]:
        """The groups that are drawn and told in full: the best `MOST_DRAWN` of those that are tested."""
        return dict(list(self.tested.items())[:MOST_DRAWN])

    @cached_property
    def tested(self) -> dict[str, list[Record]]:
        """The groups of which all is shown: of a search those alone that it chose, for it goes by no test image."""
        if not self.sweep.objectives:
            return self.groups
        chosen = {record.trial for each in look_through(self.sweep).chosen for record in each.records}
        return {name: held for name, held in self.groups.items() if chosen.intersection(each.trial for each in held)}

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


def find(out: Path, name: str, objectives: Sequence[str] = (), tasks: str | None = None) -> Subject:
    """The sweep called ``name``, or else the trial.

    Args:
        objectives: metrics that are held against each other; by default those of a search that has several.
        tasks: the option whose values are tasks; by default the data set, where a sweep varies it and something else.

    Raises:
        UserError: there is neither, or no such metric or option.
    """
    if name in sweep_names(out):
        return _of_sweep(read_sweep(out, name), objectives, tasks)
    trials = trial_names(out)
    found = [trial for trial in trials if name and trial.startswith(name)]
    if len(found) != 1:
        known = [*sweep_names(out), *trials]
        hint = nearest(name, known) if known else "Run something first: engram quickstart"
        raise must("report", "about one sweep or one trial of this folder", repr(name), hint)
    sweep = Sweep(found[0], {}, [], [Record(out / "trials" / found[0])])
    return Subject(found[0], sweep, single=True, comparison=_comparison(sweep))


def _of_sweep(sweep: Sweep, objectives: Sequence[str], tasks: str | None) -> Subject:
    outcomes = from_sweep(sweep)
    whole = _comparison(sweep)
    if whole is None:
        return Subject(sweep.name, sweep, single=False, comparison=None)
    names = objectives or (sweep.objectives if len(sweep.objectives) > 1 else ())
    option = tasks or _data(whole)
    over = compare_outcomes(outcomes, Wanted(tasks=option)) if option else None
    return Subject(
        sweep.name,
        sweep,
        single=False,
        comparison=whole,
        over_tasks=over,
        front=front(outcomes, names) if names else None,
    )


def _data(found: Comparison) -> str | None:
    """The option that names the data set, where groups differ in it and in another one."""
    kinds, axes = subject(found.experiment), found.by
    named = [axis for axis in axes if kinds.get(axis) == "datasets"]
    several = [axis for axis in axes if len({word(group.options.get(axis)) for group in found.groups}) > 1]
    return named[0] if named and named[0] in several and len(several) > 1 else None


def _comparison(sweep: Sweep) -> Comparison | None:
    try:
        return compare_outcomes(from_sweep(sweep))
    except UserError:
        return None  # nothing is done yet: the report shows how far it is
