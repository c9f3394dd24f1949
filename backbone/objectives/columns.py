"""What else is known of every image, as numbers."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from engram.backbone.data.columns import Column, numbered
from engram.backbone.data.sets import Split
from engram.backbone.errors import must


def columns_of(data: Split, names: Collection[str], device: str) -> dict[str, Tensor]:
    """The columns of these names, ``[N, ...]`` each; names and whole numbers become groups, numbered from 0.

    Raises:
        UserError: the data lack one.
    """
    for name in names:
        if name not in data.columns:
            known = ", ".join(data.columns) or "none"
            remedy = "Choose another objective, or data with that column."
            raise must("--dataset", f"one with a column {name!r}", f"columns: {known}", remedy)
    return {name: _numbers(data.columns[name]).to(device) for name in names}


def _numbers(column: Column) -> Tensor:
    if isinstance(column, tuple) or (column.ndim == 1 and not column.is_floating_point()):
        return numbered(column)[0]
    return column
