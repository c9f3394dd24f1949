"""The figures that trials hand over, those of several seeds as one where that means something."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engram.backbone.contract import Bars, Confusion, Grid, Pictures, Raster, Scatter
from engram.benchmarks.drawing.figures import Drawable
from engram.benchmarks.drawing.svg import Chart, Series
from engram.benchmarks.records.inside import open_inside
from engram.benchmarks.records.shapes import figure_kind
from engram.benchmarks.records.trials import Record, number
from engram.benchmarks.report.curves import as_pairs, mean, merge_lines

LARGEST = 4 * 2**20
"""Bytes of a picture that stands in a page."""
_PNG = b"\x89PNG\r\n\x1a\n"

Groups = Mapping[str, list[Record]]
Held = tuple[Record, Mapping[str, Any]]
"""A trial, and a figure of its as result.json has it."""


def figures(groups: Groups) -> list[Drawable]:
    """All figures of the trials: lines of all groups in one chart, anything else for each group."""
    names = dict.fromkeys(name for records in groups.values() for record in records for name in _figures(record))
    return [drawn for name in names for drawn in figure(name, groups)]


def figure(name: str, groups: Groups) -> list[Drawable]:
    """The trials' figures of that name."""
    found: list[Drawable] = []
    all_of = {
        group: [(record, _figures(record)[name]) for record in records if name in _figures(record)]
        for group, records in groups.items()
    }
    for kind in dict.fromkeys(figure_kind(about) for held in all_of.values() for _, about in held):
        alike = {group: [pair for pair in held if figure_kind(pair[1]) == kind] for group, held in all_of.items()}
        alike = {group: held for group, held in alike.items() if held}
        if kind == "lines":
            found += _lines(alike)
            continue
        for group, held in alike.items():
            merged = _MERGED[str(kind)](held, f" ({group})" if len(groups) > 1 else "")
            found += [] if merged is None else [merged]
    return found


def _figures(record: Record) -> Mapping[str, Any]:
    """Of a trial that is counted: a damaged one may have a result all the same."""
    return record.result.get("figures") or {} if record.status == "done" else {}


def _lines(held: Mapping[str, list[Held]]) -> list[Chart]:
    series: list[Series] = []
    lines: list[tuple[str, float, int]] = []
    about: Mapping[str, Any] = {}
    for group, each in held.items():
        drawn = [figure for _, figure in each]
        about = about or drawn[0]
        first = len(series)
        labels = dict.fromkeys(label for figure in drawn for label in figure["series"])
        for label in labels:
            runs = [as_pairs(figure["series"][label]) for figure in drawn if label in figure["series"]]
            said = (group if len(labels) == 1 else f"{group}: {label}") if len(held) > 1 else label
            series.append(merge_lines(said, runs))
        for label in dict.fromkeys(label for figure in drawn for label in figure.get("lines") or {}):
            values = [number(figure["lines"][label]) for figure in drawn if label in (figure.get("lines") or {})]
            lines.append((f"{label} ({group})" if len(held) > 1 else label, mean(values), first))
    if not series:
        return []
    scale = "log2" if about.get("x_scale") == "log2" else "linear"
    return [Chart(about["title"], about["x_label"], about["y_label"], series, lines, scale)]


def _grid(held: Sequence[Held], where: str) -> Grid | None:
    """Means over seeds whose grids have one shape and the same columns."""
    first = held[0][1]
    if any((len(each["rows"]), each["columns"]) != (len(first["rows"]), first["columns"]) for _, each in held):
        return None
    rows = zip(*(each["values"] for _, each in held), strict=True)
    values = [[mean([number(cell) for cell in cells]) for cells in zip(*row, strict=True)] for row in rows]
    return Grid(**_labelled(first, where, "x_label", "y_label", "columns", "rows"), values=values)


def _scatter(held: Sequence[Held], where: str) -> Scatter:
    """The points of all seeds, or of the first on axes of its own; error bars of a series where all have them."""
    if held[0][1].get("own_axes", False):
        held, where = held[:1], _seed(held, where)
    drawn = [each for _, each in held]
    labels = dict.fromkeys(label for each in drawn for label in each["series"])

    def pooled(part: str) -> dict[str, list[tuple[float, float]]]:
        owners = {label: [each for each in drawn if label in each["series"]] for label in labels}
        return {
            label: as_pairs([pair for each in owners[label] for pair in each[part][label]])
            for label in labels
            if all(label in each.get(part, ()) for each in owners[label])
        }

    about = {**_labelled(drawn[0], where, "x_label", "y_label"), "diagonal": drawn[0].get("diagonal", False)}
    return Scatter(**about, series=pooled("series"), x_ranges=pooled("x_ranges"), y_ranges=pooled("y_ranges"))


def _bars(held: Sequence[Held], where: str) -> Bars | None:
    """Means over seeds, error bars from the lowest to the highest of them; those of a single trial as they are."""
    first = held[0][1]
    if any((each["names"], [*each["series"]]) != (first["names"], [*first["series"]]) for _, each in held):
        return None
    runs = {label: [[*map(number, each["series"][label])] for _, each in held] for label in first["series"]}
    columns = {label: list(zip(*found, strict=True)) for label, found in runs.items()}
    ranges = {label: [_reach(cells) for cells in found] for label, found in columns.items()}
    if len(held) == 1:
        ranges = {label: as_pairs(pairs) for label, pairs in first.get("ranges", {}).items()}
    series = {label: [mean(cells) for cells in found] for label, found in columns.items()}
    return Bars(**_labelled(first, where, "x_label", "y_label", "names"), series=series, ranges=ranges)


def _reach(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value)]
    return min(known, default=math.nan), max(known, default=math.nan)


def _confusion(held: Sequence[Held], where: str) -> Confusion | None:
    """Counts of all seeds together."""
    first = held[0][1]
    if any(each["classes"] != first["classes"] for _, each in held):
        return None
    rows = zip(*(each["counts"] for _, each in held), strict=True)
    counts = [[sum(cells) for cells in zip(*row, strict=True)] for row in rows]
    return Confusion(**_labelled(first, where, "classes"), counts=counts)


def _raster(held: Sequence[Held], where: str) -> Raster:
    """The first seed's: spikes of two networks have no mean."""
    return Raster(**_labelled(held[0][1], _seed(held, where), "x_label", "start", "end", "groups"))


def _pictures(held: Sequence[Held], where: str) -> Pictures:
    """The first seed's."""
    record, about = held[0]
    data = [_bytes(record, path) for path in about["pictures"]]
    return Pictures(**_labelled(about, _seed(held, where), "captions"), pictures=data)


def _seed(held: Sequence[Held], where: str) -> str:
    return f"{where}, seed {held[0][0].seed}" if len(held) > 1 else where


def _bytes(record: Record, path: str) -> bytes:
    """A picture of the trial; b"" where it is not there, is too large or no PNG file, or lies elsewhere."""
    try:
        with open_inside(record.folder, path) as file:
            data = file.read(LARGEST + 1)
    except OSError:
        return b""
    return data if data.startswith(_PNG) and len(data) <= LARGEST else b""


def _labelled(about: Mapping[str, Any], where: str, *names: str) -> dict[str, Any]:
    return {"title": f"{about['title']}{where}", **{name: about[name] for name in names}}


_MERGED: Mapping[str, Callable[[Sequence[Held], str], Drawable | None]] = {
    "grid": _grid,
    "scatter": _scatter,
    "bars": _bars,
    "confusion": _confusion,
    "raster": _raster,
    "pictures": _pictures,
}
