"""One folder of pictures per class: ``folder:PATH``."""

from __future__ import annotations

from pathlib import Path

import torch

from engram.backbone.data.class_folders import Parts, folder_of, pictures_of
from engram.backbone.data.columns import read_as_column
from engram.backbone.data.lists import folder_parts
from engram.backbone.data.metadata import described
from engram.backbone.data.options import FolderOptions
from engram.backbone.data.pictures import Labelled, open_pictures
from engram.backbone.data.sets import Source
from engram.backbone.data.subgroups import sorted_by


def open_folder(
    path: str | None, options: FolderOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """The pictures in the folders of PATH, see `engram.backbone.data.lists.folder_parts`.

    Raises:
        UserError: nothing is there, a class has no picture, pictures are damaged or differ in size or colour, or what
            is asked for is not told of every one.
    """
    o = options or FolderOptions()
    parts = folder_parts(path, o.parts)
    pictures = pictures_of(parts)
    values = described(folder_of(path), pictures.paths, o)
    classes, labels = labels_of(parts)
    told = {name: read_as_column(texts) for name, texts in values.items()}
    told |= sorted_by(o, classes, torch.cat(list(labels.values())), told)
    known = Labelled(labels, classes, told=told, disjoint=o.parts == "disjoint")
    return open_pictures(pictures, known, o, budget_bytes)


def labels_of(parts: Parts) -> tuple[tuple[str, ...], dict[str, torch.Tensor]]:
    """The classes of all parts, those of ``train`` first, and the labels ``[n] int64`` of each part's pictures."""
    classes = tuple(dict.fromkeys(name for part in parts.values() for name in part))
    number = {name: label for label, name in enumerate(classes)}
    return classes, {
        name: torch.tensor([number[each] for each, paths in part.items() for _ in paths])
        for name, part in parts.items()
    }
