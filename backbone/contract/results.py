"""What a finished trial reports: numbers, tables, figures as plain data, and files.

A figure says what is to be seen; the report and MLflow draw it. ``kind`` is how result.json names its class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from engram.backbone.contract.values import Row

Range = tuple[float, float]
"""From where to where an error bar reaches."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A line chart. ``lines`` are horizontal references (name, y)."""

    kind: ClassVar[str] = "lines"

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    lines: Mapping[str, float] = field(default_factory=dict)
    x_scale: Literal["linear", "log2"] = "linear"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of numbers to be seen as shades: ``values[row][column]``, nan where there is none."""

    kind: ClassVar[str] = "grid"

    title: str
    x_label: str
    y_label: str
    columns: Sequence[str]
    rows: Sequence[str]
    values: Sequence[Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Points that no line joins. ``x_ranges`` and ``y_ranges`` hold an error bar for each point of a series."""

    kind: ClassVar[str] = "scatter"

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    x_ranges: Mapping[str, Sequence[Range]] = field(default_factory=dict)
    y_ranges: Mapping[str, Sequence[Range]] = field(default_factory=dict)
    diagonal: bool = False
    """Draw the line on which both axes say the same."""
    own_axes: bool = False
    """The axes are this trial's own, as main axes of features are: points of several seeds are not drawn together."""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A bar for each of ``names`` and each series, from 0; ``ranges`` hold an error bar for each bar of a series."""

    kind: ClassVar[str] = "bars"

    title: str
    x_label: str
    y_label: str
    names: Sequence[str]
    series: Mapping[str, Sequence[float]]
    ranges: Mapping[str, Sequence[Range]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often what belongs to one class was taken for another: ``counts[true][predicted]``."""

    kind: ClassVar[str] = "confusion"

    title: str
    classes: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Raster:
    """When neurons fire: for each group of neurons (a layer, say) the spike times of each of its neurons."""

    kind: ClassVar[str] = "raster"

    title: str
    x_label: str
    start: float
    """Where the time axis begins, and"""
    end: float
    """where it ends, in the unit of ``x_label``, as all times."""
    groups: Mapping[str, Sequence[Sequence[float]]]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures with a line of text below each.

    A picture is the bytes of a PNG file, or an array or tensor of uint8 of shape [H, W] (grey) or [H, W, 3] (red,
    green, blue). Each becomes a file of the trial, of which result.json knows the path.
    """

    kind: ClassVar[str] = "pictures"

    title: str
    pictures: Sequence[Any]
    captions: Sequence[str]


AnyFigure = Figure | Grid | Scatter | Bars | Confusion | Raster | Pictures
FIGURES: Mapping[str, type[AnyFigure]] = {
    each.kind: each for each in (Figure, Grid, Scatter, Bars, Confusion, Raster, Pictures)
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished trial reports. ``artifacts`` maps names to paths relative to the trial folder."""

    metrics: Mapping[str, float]
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    figures: Mapping[str, AnyFigure] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
