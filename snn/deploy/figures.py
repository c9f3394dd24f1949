"""What a deployment looks like: the cores of the chips, and where the bits go."""

from __future__ import annotations

import math

from engram.backbone.contract import Bars, Grid
from engram.snn.loihi.mapper import Mapped

COLUMNS = 16
"""Cores beside one another in the picture; where they lie on the chip is up to the compiler."""


def cores(mapping: Mapped) -> Grid:
    """The cores as a grid, in the order in which layers take them; a cell is the fuller of a core's memories."""
    loads = [100 * max(core.load) for core in mapping.cores]
    rows = math.ceil(len(loads) / COLUMNS)
    padded = [*loads, *[math.nan] * (rows * COLUMNS - len(loads))]
    return Grid(
        title="Load of every core: neurons or synaptic memory, the fuller one, in %",
        x_label="core within the row",
        y_label="layers",
        columns=[str(column) for column in range(COLUMNS)],
        rows=[_between(mapping, row) for row in range(rows)],
        values=[padded[row * COLUMNS : (row + 1) * COLUMNS] for row in range(rows)],
    )


def _between(mapping: Mapped, row: int) -> str:
    """Which layers a row of the grid holds."""
    names = list(dict.fromkeys(core.layer for core in mapping.cores[row * COLUMNS : (row + 1) * COLUMNS]))
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def by_layer(mapping: Mapped) -> Bars:
    """Cores of every layer."""
    return Bars(
        title="Cores of each layer",
        x_label="layer",
        y_label="cores",
        names=[row.layer for row in mapping.rows],
        series={"cores": [float(row.cores) for row in mapping.rows]},
    )
