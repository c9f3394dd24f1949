"""Columns of 0 and 1 as one column of concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engram.backbone.data.columns import CONCEPTS, Column
from engram.backbone.data.sets import Data, Split
from engram.backbone.data.views import seen
from engram.backbone.errors import must
from engram.causal.concepts.configs import unknown_column

_WORDS = {"0": False, "1": True, "0.0": False, "1.0": True, "False": False, "True": True}


def with_concepts(data: Data, names: Sequence[str]) -> Data:
    """The data with a column of concepts, which are its columns of these names.

    Raises:
        UserError: it lacks one, or a value is neither 0 nor 1.
    """
    table = torch.arange(len(data.classes))

    def each(split: Split) -> Split:
        concepts = torch.stack([_truth(split, name) for name in names], 1)
        return seen(split, table, columns={CONCEPTS: concepts})

    validation = None if data.validation is None else each(data.validation)
    return replace(data, train=each(data.train), validation=validation, test=each(data.test))


def _truth(split: Split, name: str) -> Tensor:
    """[N] bool of one column."""
    if name not in split.columns:
        raise unknown_column(name, split.columns)
    column: Column = split.columns[name]
    words = column if isinstance(column, tuple) else tuple(str(value) for value in column.tolist())
    if other := sorted({word for word in words if word not in _WORDS}):
        raise must(f"column {name!r} of --concepts", "0 or 1 for every image", other[0], "Name another column.")
    return torch.tensor([_WORDS[word] for word in words])
