"""What is known of every image beside its label: named columns, aligned with the images of a split.

A column is numbers ``[N]``, a mask ``[N, H, W]``, one of classes ``[N, K]``, or N names. ``original_index``
``[N] int64`` is the image's place in the part of the source that it came with (``train``, ``test``, ...), whatever
splits it has been chosen for since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.fingerprint import Fingerprint

Column = Tensor | tuple[str, ...]
"""On the CPU."""
Columns = Mapping[str, Column]
NO_COLUMNS: Columns = {}
INDEX = "original_index"
GROUP = "group"
"""The subgroup of every image, class and attribute together: names, or whole numbers."""
ENVIRONMENT = "environment"
"""Where every image comes from: names, or whole numbers. What holds in all environments is invariant."""
CONTEXT = "context"
"""What may have caused both the picture's surroundings and its label: names, or whole numbers."""
MEDIATOR = "mediator"
"""What an effect of the picture on its label goes through: names, or whole numbers."""
FOREGROUND = "foreground"
"""Where the object is, ``[N, H, W] bool``."""
CONCEPTS = "concepts"
"""Which of K concepts hold for every image, ``[N, K] bool``."""
PRESENT = "present"
"""Which of K classes are in an image, ``[N, K] bool``, where several may be."""


def indexed(*sizes: int) -> dict[str, Column]:
    """The column ``original_index`` of parts of these sizes, one after another.

    >>> indexed(3, 2)["original_index"].tolist()
    [0, 1, 2, 0, 1]
    """
    return {INDEX: torch.cat([torch.arange(size) for size in sizes])}


def checked(columns: Columns, count: int) -> Columns:
    """The columns themselves, each with a value for every one of ``count`` images; anything else is an error."""
    for name, column in columns.items():
        if len(column) != count:
            raise ValueError(f"column {name} has {len(column)} values for {count} images")
    return columns


def chosen(columns: Columns, indices: Tensor) -> dict[str, Column]:
    """The values at ``indices: [M] int64``, in that order.

    >>> chosen({"writer": ("ann", "bob"), "group": torch.tensor([3, 4])}, torch.tensor([1, 1]))
    {'writer': ('bob', 'bob'), 'group': tensor([4, 4])}
    """
    places = indices.tolist() if any(isinstance(column, tuple) for column in columns.values()) else []
    return {
        name: column.index_select(0, indices)
        if isinstance(column, Tensor)
        else tuple(column[place] for place in places)
        for name, column in columns.items()
    }


def joined(several: Sequence[Columns]) -> dict[str, Column]:
    """The columns that all of several splits have, one split after another; where kinds or shapes differ, none."""
    first = several[0]
    return {name: column for name in first if (column := _joined([each.get(name) for each in several])) is not None}


def _joined(several: Sequence[Column | None]) -> Column | None:
    tensors = [each for each in several if isinstance(each, Tensor)]
    if len(tensors) == len(several):
        alike = len({(each.dtype, each.shape[1:]) for each in tensors}) == 1
        return torch.cat(tensors) if alike else None
    words = [each for each in several if isinstance(each, tuple)]
    return tuple(word for each in words for word in each) if len(words) == len(several) else None


def without_masks(columns: Columns) -> dict[str, Column]:
    """The columns that are not masks: a mask no longer fits an image whose pixels have moved."""
    return {name: column for name, column in columns.items() if isinstance(column, tuple) or column.ndim < 3}


def without_classes(columns: Columns) -> dict[str, Column]:
    """The columns that do not number the classes: under other labels their numbers mean others."""
    return {name: column for name, column in columns.items() if name != PRESENT}


def numbered(column: Column) -> tuple[Tensor, tuple[str, ...]]:
    """Number the groups that a column of names or whole numbers makes.

    Returns:
        The group of every image, ``[N] int64``, and what the groups are called, in ascending order.

    >>> numbered(("mono", "poly", "mono"))
    (tensor([0, 1, 0]), ('mono', 'poly'))
    """
    values, groups = np.unique(np.asarray(column), return_inverse=True)
    return torch.from_numpy(groups.astype(np.int64)), tuple(map(str, values.tolist()))


def read_as_column(values: Sequence[str]) -> Column:
    """Texts as whole numbers where all of them are such, as Python would write them; otherwise as they are.

    >>> read_as_column(["3", "-1"]), read_as_column(["03", "1"])
    (tensor([ 3, -1]), ('03', '1'))
    """
    try:
        numbers = [int(value) for value in values]
        if [str(number) for number in numbers] == list(values):
            return torch.tensor(numbers)
    except (ValueError, RuntimeError):  # RuntimeError: over 64 bits
        pass
    return tuple(values)


def identify(digest: Fingerprint, columns: Columns) -> None:
    """Add names and values of columns, if there are any."""
    for name, column in columns.items():
        digest.words(("column", name))
        if isinstance(column, tuple):
            digest.words(column)
        else:
            digest.array(column.numpy())
