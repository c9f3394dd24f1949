"""Image tables as the Hugging Face hub stores them: ``parquet:PATH``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from engram.backbone.data.options import PartOptions
from engram.backbone.data.pictures import Labelled, open_pictures
from engram.backbone.data.sets import Source
from engram.backbone.data.subgroups import sorted_by
from engram.backbone.data.tables import find_tables


def open_parquet(
    path: str | None, options: PartOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """The pictures in the tables of PATH, see `engram.backbone.data.tables.find_tables`.

    Raises:
        UserError: a file is missing, damaged, or holds something else.
    """
    o = options or PartOptions()
    found = find_tables(path, o.parts, o.asked)
    labels = {part: torch.from_numpy(held) for part, held in found.labels.items()}
    columns = {
        name: torch.from_numpy(values) if isinstance(values, np.ndarray) else tuple(values)
        for name, values in found.columns.items()
    }
    columns |= sorted_by(o, found.classes, torch.cat(list(labels.values())), columns)
    known = Labelled(labels, found.classes, told=columns, disjoint=o.parts == "disjoint")
    return open_pictures(found.pictures, known, o, budget_bytes)
