"""``engram.compare``: what a sweep says, with intervals and paired differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engram.benchmarks.compare.groups import Comparison, group_row, pair_row
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
    """

    groups: Table
    differences: Table
    _made: Comparison = field(repr=False)

    def to_dataframe(self) -> pd.DataFrame:
        """The groups."""
        return self.groups.to_dataframe()

    def __str__(self) -> str:
        return f"{self.groups}\n{self.differences}" if len(self.differences) else str(self.groups)

    def _repr_html_(self) -> str:
        return self.groups._repr_html_() + (self.differences._repr_html_() if len(self.differences) else "")


def compare(
    sweep: str,
    *,
    by: str | None = None,
    metric: str | None = None,
    out: str | Path = "runs",
    tracking_uri: str | None = None,
) -> Compared:
    """Compare the groups of a sweep as ``engram compare`` does.

    Args:
        sweep: its name.
        by: the option, or several with commas, whose values make the groups; by default what the sweep varies.
        metric: what to compare; by default the experiment's primary metric.
        out: the output folder; not read with ``tracking_uri``.
        tracking_uri: read the trials from this MLflow store.

    Raises:
        UserError: there is no such sweep, option or metric.

    >>> import engram
    >>> engram.compare("widths", out="/no/such/folder")
    Traceback (most recent call last):
    engram.backbone.errors.UserError: sweep must be one that was run here; got 'widths'. ...
    """
    made = work_out(Path(out), sweep, by, metric, None, tracking_uri)
    groups = Table(made.title, tuple(map(group_row, made.groups)))
    pairs = Table("differences, paired by seed", tuple(map(pair_row, made.pairs)))
    return Compared(groups, pairs, made)
