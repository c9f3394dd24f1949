"""What is left of finished trials and sweeps, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from engram.backbone.contract import Scalar
from engram.backbone.errors import must, nearest
from engram.benchmarks.records.trials import Record
from engram.face.views import Plot, Table

if TYPE_CHECKING:
    import pandas as pd

    from engram.face.comparing import Compared
    from engram.face.trained import Trained


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that is done.

    Attributes:
        id: what it is known by, on the command line too.
        folder: where all of it lies.
        options: every option by its flag's name.
        metrics: what it reports, by name.
        tables: what it shows, by name.
        artifacts: the files that it leaves, by name.
    """

    id: str
    folder: Path
    experiment: str
    options: Mapping[str, Scalar] = field(repr=False)
    metrics: Mapping[str, float]
    tables: Mapping[str, Table] = field(repr=False)
    artifacts: Mapping[str, Path] = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> FinishedTrial:
        """The trial in a folder."""
        record = Record(folder)
        files = {name: folder / path for name, path in record.result["artifacts"].items()}
        tables = {name: Table(name.replace("_", " "), tuple(rows)) for name, rows in record.result["tables"].items()}
        return cls(record.trial, folder, record.experiment, record.config, record.metrics, tables, files)

    @property
    def figures(self) -> list[str]:
        """The names that `plot` takes."""
        return list(Record(self.folder).result.get("figures") or {})

    def plot(self, name: str | None = None) -> Plot:
        """One of its figures, by default the first.

        Raises:
            UserError: it has none of that name.
        """
        from engram.benchmarks.report.figures import figure

        name = name or next(iter(self.figures), "")
        if name not in self.figures:
            raise must("the name of a figure", "one of the trial's", repr(name), nearest(name, self.figures))
        return Plot.of(figure(name, {self.id: [Record(self.folder)]})[0])

    def load(self) -> Trained:
        """Its network, see `engram.load`."""
        from engram.face.trained import Trained

        return Trained.read(self.folder)

    def to_dataframe(self) -> pd.DataFrame:
        """Its metrics, a row for each."""
        return self._metrics.to_dataframe()

    @property
    def _metrics(self) -> Table:
        rows = ({"metric": name, "value": value} for name, value in self.metrics.items())
        return Table(f"{self.experiment} {self.id}", tuple(rows))

    def _repr_html_(self) -> str:
        return self._metrics._repr_html_()


@dataclass(frozen=True)
class FinishedSweep:
    """A sweep all of whose trials are done, but for those that a search gave up.

    Attributes:
        name: what `engram.compare` and ``engram report`` know it by.
        trials: those that are done, in the order of its grid or search, seeds innermost.
        axes: the options that it varies.
    """

    name: str
    out: Path
    axes: tuple[str, ...]
    trials: tuple[FinishedTrial, ...] = field(repr=False)

    @property
    def table(self) -> Table:
        """A row for each trial: what the sweep varies, its seed, its metrics."""
        rows = tuple(
            {**{axis: each.options.get(axis) for axis in (*self.axes, "seed")}, "trial": each.id, **each.metrics}
            for each in self.trials
        )
        return Table(f"sweep {self.name}", rows)

    def compare(self, by: str | None = None, metric: str | None = None) -> Compared:
        """Its groups, see `engram.compare`."""
        from engram.face.comparing import compare

        return compare(self.name, by=by, metric=metric, out=self.out)

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each trial."""
        return self.table.to_dataframe()

    def _repr_html_(self) -> str:
        return self.table._repr_html_() + f"<p>{escape(str(self.out))}</p>"
