"""What else is known of every image, as numbers."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from engram.backbone.data.columns import Column, numbered
from engram.backbone.data.sets import Split
from engram.backbone.errors import UserError
from engram.backbone.objectives.asking import lacking


def columns_of(data: Split, names: Collection[str], device: str) -> dict[str, Tensor]:
    """The columns of these names, ``[N, ...]`` each; names and whole numbers become groups, numbered from 0.

    Raises:
        UserError: the data lack some, one line for each.
    """
    if problems := lacking(names, data.columns):
        raise UserError("\n".join(map(str, problems)))
    return {name: _numbers(data.columns[name]).to(device) for name in names}


def _numbers(column: Column) -> Tensor:
    if isinstance(column, tuple) or (column.ndim == 1 and not column.is_floating_point()):
        return numbered(column)[0]
    return column
