"""One folder of pictures per class: ``folder:PATH``."""

from __future__ import annotations

from pathlib import Path

import torch

from engram.backbone.data.class_folders import Parts, find_parts, pictures_of
from engram.backbone.data.options import PictureOptions
from engram.backbone.data.pictures import open_pictures
from engram.backbone.data.sets import Source


def open_folder(
    path: str | None, options: PictureOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """The pictures in the folders of PATH, see `engram.backbone.data.class_folders.find_parts`.

    Raises:
        UserError: nothing is there, a class has no picture, or pictures are damaged or differ in size or colour.
    """
    return open_classes(find_parts(path), options or PictureOptions(), budget_bytes)


def open_classes(parts: Parts, options: PictureOptions, budget_bytes: int) -> Source:
    """Open splits of pictures by class; the classes are those of ``train``."""
    classes = tuple(parts["train"])
    number = {name: label for label, name in enumerate(classes)}
    labels = {
        name: torch.tensor([number[each] for each, paths in part.items() for _ in paths])
        for name, part in parts.items()
    }
    return open_pictures(pictures_of(parts), labels, classes, options, budget_bytes)
