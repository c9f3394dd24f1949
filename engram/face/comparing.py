"""``engram.compare``: what a sweep says, with intervals and paired differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engram.benchmarks.compare.comparison import Comparison, group_row, pair_row, task_rows
from engram.benchmarks.compare.wanted import Wanted
from engram.benchmarks.comparing import compare as work_out
from engram.face.views import Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Compared:
    """The groups of a sweep.

    Attributes:
        groups: a row for each, best first: mean, 95 % interval over seeds, n.
        differences: a row for each pair: the worse minus the better, paired by seed, exact p, after Holm.
        tasks: a row for each group over all tasks: interquartile mean, mean rank, how probable it is that the best is
            better; empty without ``tasks``.
    """

    groups: Table
    differences: Table
    tasks: Table
    _made: Comparison = field(repr=False)

    def to_dataframe(self) -> pd.DataFrame:
        """The groups."""
        return self.groups.to_dataframe()

    def __str__(self) -> str:
        return "\n".join(map(str, self._shown()))

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self._shown())

    def _shown(self) -> list[Table]:
        return [self.groups, *(table for table in (self.tasks, self.differences) if len(table))]


def compare(
    *names: str,
    by: str | None = None,
    metric: str | None = None,
    tasks: str | None = None,
    out: str | Path = "runs",
    tracking_uri: str | None = None,
) -> Compared:
    """Compare the groups of sweeps and trials as ``engram compare`` does.

    Args:
        names: sweeps, by name or folder, and finished trials, by id or folder.
        by: the option, or several with commas, whose values make the groups; by default what the sweep varies.
        metric: what to compare; by default the experiment's primary metric.
        tasks: the option whose values are tasks: groups are ranked over them.
        out: the output folder; not read with ``tracking_uri``.
        tracking_uri: read the trials from this MLflow store.

    Raises:
        UserError: there is no such sweep, option or metric.

    >>> import engram
    >>> engram.compare("widths", out="/no/such/folder")
    Traceback (most recent call last):
    engram.backbone.errors.UserError: sweep must be one that was run here; got 'widths'. ...
    """
    made = work_out(Path(out), *names, wanted=Wanted(by=by, metric=metric, tasks=tasks), tracking_uri=tracking_uri)
    groups = Table(made.title, tuple(map(group_row, made.groups)))
    pairs = Table("differences, paired by seed", tuple(map(pair_row, made.pairs)))
    over = Table("over tasks", () if made.tasks is None else tuple(task_rows(made.tasks)))
    return Compared(groups, pairs, over, made)
