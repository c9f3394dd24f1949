"""Network files from strangers: screened before anything parses them, for NIR and netx alike."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engram.backbone.hdf5.reading import Tree
from engram.backbone.hdf5.reading import read as read_hdf5


def screened(file: Path, remedy: str) -> Tree:
    """What a network file holds, as plain arrays; all of it was read from one opening of the file.

    Args:
        file: an HDF5 file.
        remedy: ends every error: what to do for another file.

    Raises:
        UserError: it is no HDF5 file, is damaged, reaches beyond itself, or asks for more than a network needs.
    """
    return read_hdf5(file, remedy=remedy)


def as_hdf5(tree: Tree) -> io.BytesIO:
    """The same content as a clean HDF5 file in memory, for libraries that read HDF5 themselves."""
    import h5py

    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        _fill(file, tree, h5py.string_dtype())
    held.seek(0)
    return held


def _fill(group: Any, tree: Mapping[str, Any], text: np.dtype) -> None:
    for name, value in tree.items():
        if isinstance(value, dict):
            _fill(group.create_group(name), value, text)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            group.create_dataset(name, data=value)
        else:
            group.create_dataset(name, data=value, dtype=text)
