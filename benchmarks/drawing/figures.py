"""Every kind of figure as one drawing, and its key."""

from __future__ import annotations

from engram.backbone.contract import Bars, Confusion, Grid, Pictures, Raster, Scatter
from engram.benchmarks.drawing import bars, scatter
from engram.benchmarks.drawing.heatmap import confusion_matrix, heat_map
from engram.benchmarks.drawing.pictures import picture_sheet
from engram.benchmarks.drawing.ranks import RankLine, rank_line
from engram.benchmarks.drawing.raster import raster_plot
from engram.benchmarks.drawing.svg import Chart, keys, line_chart

Drawable = Chart | Grid | Scatter | Bars | Confusion | Raster | Pictures | RankLine
"""What is drawn: for lines a `Chart`, which has bands, else the figure itself; pictures as the bytes of PNG files."""


def draw(figure: Drawable, name: str) -> str:
    """The figure as one ``<svg>``; ``name`` must be unique in the page and plain (it becomes an id)."""
    match figure:
        case Chart():
            return line_chart(figure, name)
        case Grid():
            return heat_map(figure, name)
        case Scatter():
            return scatter.scatter_plot(figure, name)
        case Bars():
            return bars.bar_chart(figure, name)
        case Confusion():
            return confusion_matrix(figure, name)
        case Raster():
            return raster_plot(figure, name)
        case Pictures():
            return picture_sheet(figure, name)
        case RankLine():
            return rank_line(figure, name)


def key(figure: Drawable) -> list[tuple[str, str]]:
    """What its signs look like, drawn in 34 x 12, and what they are; empty where there is but one."""
    match figure:
        case Chart():
            found = keys(figure)
        case Scatter():
            found = scatter.swatches(figure)
        case Bars():
            found = bars.swatches(figure)
        case _:
            found = []
    return found if len(found) > 1 else []
