"""What a finished trial reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from engram.backbone.contract.values import Row


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A line chart as plain data; the report draws it. ``lines`` are horizontal references (name, y)."""

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    lines: Mapping[str, float] = field(default_factory=dict)
    x_scale: Literal["linear", "log2"] = "linear"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of numbers to be seen as shades: ``values[row][column]``, nan where there is none."""

    title: str
    x_label: str
    y_label: str
    columns: Sequence[str]
    rows: Sequence[str]
    values: Sequence[Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished trial reports. ``artifacts`` maps names to paths relative to the trial folder."""

    metrics: Mapping[str, float]
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    figures: Mapping[str, Figure | Grid] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
