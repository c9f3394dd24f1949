"""One folder of pictures per class: ``folder:PATH``."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from backbone.data.options import PictureOptions
from backbone.data.pictures import FilePictures, open_pictures
from backbone.data.sets import Source
from backbone.errors import must

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
_TESTS = ("test", "val", "valid", "validation")


def open_folder(
    path: str | None, options: PictureOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """Every folder that holds pictures is a class, called by its path below PATH: ``cat`` or ``Greek/character01``.

    When PATH holds ``train`` beside ``test`` (or ``val``, ``valid``, ``validation``), these are the splits. Hidden
    files, and files without one of `SUFFIXES`, are passed over; links are followed.

    Raises:
        UserError: nothing is there, a class has no picture, or a picture is damaged.
    """
    where = Path(path or "").expanduser()
    if not where.is_dir():
        raise must("folder:PATH", "a folder", f"nothing of the kind at {where.absolute()}", "Check the path.")
    parts = {part: picture_folders(folder) for part, folder in _parts(where).items()}
    return open_classes(parts, options or PictureOptions(), budget_bytes)


def _parts(where: Path) -> dict[str, Path]:
    folders = sorted(entry.name for entry in where.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    tests = [name for name in _TESTS if name in folders]
    only_parts = bool(folders) and set(folders) <= {"train", *_TESTS}
    if "train" in folders and (tests or only_parts):
        if len(tests) > 1:
            logging.getLogger(__name__).warning("%s: %s is left out, as there is %s", where, tests[1], tests[0])
        return {"train": where / "train", **({"test": where / tests[0]} if tests else {})}
    if only_parts:
        raise must(
            str(where),
            "a folder with train/ in it",
            f"only {', '.join(folders)}",
            f"Give the split itself: folder:{where / folders[0]}",
        )
    return {"train": where}


def picture_folders(where: Path) -> dict[str, list[Path]]:
    """Class name -> its pictures, both in the order of their names.

    Raises:
        UserError: a folder without folders in it holds no picture, or pictures lie outside of any class.
    """
    found: dict[str, list[Path]] = {}
    seen = set()
    for folder, below, files in os.walk(where, followlinks=True, onerror=_unreadable):
        here = Path(folder)
        below[:] = sorted(name for name in below if not name.startswith("."))
        if here.resolve() in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(here.resolve())
        paths = sorted(here / name for name in files if Path(name).suffix.lower() in SUFFIXES and name[0] != ".")
        if here == where:
            if paths:
                raise must(
                    "every picture", "in the folder of its class", paths[0], "Move it to a folder named by its class."
                )
        elif paths:
            found[here.relative_to(where).as_posix()] = paths
        elif not below:
            raise must(
                "every class",
                "a folder with at least one picture",
                f"none in {here}",
                f"Add pictures ({', '.join(sorted(SUFFIXES))}) or take the folder away.",
            )
    if not found:
        raise must(str(where), "a folder with one folder of pictures per class", "an empty one", "Check the path.")
    return dict(sorted(found.items()))


def _unreadable(error: OSError) -> None:
    raise must("every folder", "readable", f"{error.filename} ({error.strerror})", "Check its permissions.") from error


def open_classes(parts: Mapping[str, Mapping[str, list[Path]]], options: PictureOptions, budget_bytes: int) -> Source:
    """Open splits of pictures by class; the classes are those of ``train``."""
    classes = tuple(parts["train"])
    number = {name: label for label, name in enumerate(classes)}
    for part in parts.values():
        for name, paths in part.items():
            if name not in number:
                got = f"{name!r} ({paths[0].parent})"
                raise must("every class of the test set", "in the train set too", got, "Take it away or train on it.")
    labels = {
        name: torch.tensor([number[each] for each, paths in part.items() for _ in paths])
        for name, part in parts.items()
    }
    paths = tuple(path for part in parts.values() for held in part.values() for path in held)
    return open_pictures(FilePictures(paths), labels, classes, options, budget_bytes)
