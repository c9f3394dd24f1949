"""Image tables as the Hugging Face hub stores them: ``parquet:PATH``."""

from __future__ import annotations

from pathlib import Path

import torch

from engram.backbone.data.options import PictureOptions
from engram.backbone.data.pictures import open_pictures
from engram.backbone.data.sets import Source
from engram.backbone.data.tables import find_tables


def open_parquet(
    path: str | None, options: PictureOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """The pictures in the tables of PATH, see `engram.backbone.data.tables.find_tables`.

    Raises:
        UserError: a file is missing, damaged, or holds something else.
    """
    found = find_tables(path)
    labels = {part: torch.from_numpy(held) for part, held in found.labels.items()}
    return open_pictures(found.pictures, labels, found.classes, options or PictureOptions(), budget_bytes)
