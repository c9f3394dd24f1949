"""Plain results as people look at them: tables and charts, in a terminal, a notebook or a file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from engram.backbone.contract import Figure, Row, Scalar
from engram.benchmarks.drawing.figures import Drawable
from engram.benchmarks.drawing.svg import Chart, Series
from engram.benchmarks.drawing.tables import render
from engram.benchmarks.report.html import table
from engram.benchmarks.report.picture import picture

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table(Sequence[Row]):
    """Rows under a title; ``note`` says how to read them.

    >>> scores = Table("scores", ({"steps": 1, "accuracy": 0.5}, {"steps": 2, "accuracy": 0.75}))
    >>> print(scores)
    scores
      steps  accuracy
          1       0.5
          2      0.75
    >>> scores[-1]["accuracy"], scores.column("steps")
    (0.75, [1, 2])
    """

    title: str
    rows: tuple[Row, ...]
    note: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place):  # type: ignore[override]  # noqa: ANN001, ANN204 - as Sequence has it, for a place and a slice
        return self.rows[place]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def column(self, name: str) -> list[Scalar]:
        """The values of one column, None where a row has none."""
        return [row.get(name) for row in self.rows]

    def to_dataframe(self) -> pd.DataFrame:
        """A `pandas.DataFrame` with a line for each row."""
        import pandas as pd

        return pd.DataFrame([dict(row) for row in self.rows], columns=self.columns)

    def __str__(self) -> str:
        return "\n".join([render(self.title, self.rows), *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        names = self.columns
        cells = [[row.get(name) for name in names] for row in self.rows]
        return table(self.title, names, cells) + (f"<p>{escape(self.note)}</p>" if self.note else "")


@dataclass(frozen=True)
class Plot:
    """A chart as SVG text, drawn by engram itself."""

    title: str
    svg: str

    @classmethod
    def of(cls, figure: Figure | Drawable) -> Plot:
        return cls(figure.title, picture(_chart(figure)))

    def save(self, path: str | Path) -> Path:
        """Write it as an SVG file, and return where."""
        place = Path(path)
        place.write_text(self.svg, encoding="utf-8")
        return place

    def __repr__(self) -> str:
        return f"Plot({self.title!r}; .save(FILE.svg) writes it)"

    def _repr_html_(self) -> str:
        # as a picture, or its style sheet would be the notebook's
        packed = base64.b64encode(self.svg.encode()).decode()
        return f'<img alt="{escape(self.title, quote=True)}" src="data:image/svg+xml;base64,{packed}" width="520">'


def _chart(figure: Figure | Drawable) -> Drawable:
    if not isinstance(figure, Figure):
        return figure
    series = [Series(name, points) for name, points in figure.series.items()]
    lines = [(name, value, 0) for name, value in figure.lines.items()]
    return Chart(figure.title, figure.x_label, figure.y_label, series, lines, figure.x_scale)
