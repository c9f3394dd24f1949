"""Subgroups and environments of pictures, by what columns say of them."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.backbone.data.columns import ENVIRONMENT, GROUP, Column, Columns
from engram.backbone.data.options import PartOptions


def subgroups(classes: tuple[str, ...], labels: Tensor, column: Column) -> tuple[str, ...]:
    """What class and column together make of every image of ``labels: [N] int64``.

    >>> subgroups(("cat", "dog"), torch.tensor([1, 0]), ("indoors", "outdoors"))
    ('dog, indoors', 'cat, outdoors')
    """
    return tuple(f"{classes[label]}, {value}" for label, value in zip(labels.tolist(), values(column), strict=True))


def values(column: Column) -> list[object]:
    """What a column of names or of one number an image says of each of them."""
    return column.tolist() if isinstance(column, Tensor) else list(column)


def sorted_by(options: PartOptions, classes: tuple[str, ...], labels: Tensor, told: Columns) -> Columns:
    """The columns ``group`` and ``environment`` as the options ask for them, of what has been ``told``."""
    found: dict[str, Column] = {}
    if options.group is not None:
        found[GROUP] = subgroups(classes, labels, told[options.group])
    if options.environment is not None:
        column = told[options.environment]
        truths = isinstance(column, Tensor) and column.dtype == torch.bool
        found[ENVIRONMENT] = tuple(map(str, values(column))) if truths else column
    return found
