"""How pictures lie in folders, one per class; no torch here."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from backbone.data.encoded import FilePictures
from backbone.errors import UserError, must

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
_TESTS = ("test", "val", "valid", "validation")

Parts = Mapping[str, Mapping[str, list[Path]]]
"""Split -> class -> its pictures; ``train`` comes first."""


def find_parts(path: str | None) -> Parts:
    """What ``folder:PATH`` holds.

    Every folder that holds pictures is a class, called by its path below PATH: ``cat`` or ``Greek/character01``. When
    PATH holds ``train`` beside ``test`` (or ``val``, ``valid``, ``validation``), these are the splits. Hidden files,
    and files without one of `SUFFIXES`, are passed over; links are followed.

    Raises:
        UserError: one line for each thing that is wrong.
    """
    where = Path(path or "").expanduser()
    if not where.is_dir():
        raise must("folder:PATH", "a folder", f"nothing of the kind at {where.absolute()}", "Check the path.")
    parts: dict[str, dict[str, list[Path]]] = {}
    problems: list[str] = []
    for part, folder in _parts(where).items():
        try:
            parts[part] = picture_folders(folder)
        except UserError as error:
            problems.append(str(error))
    problems += strangers(parts) if "train" in parts else []
    if problems:
        raise UserError("\n".join(problems))
    return parts


def pictures_of(parts: Parts) -> FilePictures:
    """All pictures, split after split and class after class."""
    return FilePictures(tuple(path for part in parts.values() for held in part.values() for path in held))


def strangers(parts: Parts) -> list[str]:
    """A line for every class of another split that ``train`` lacks."""
    return [
        str(
            must(
                "every class of the test set",
                "in the train set too",
                f"{name!r} ({paths[0].parent})",
                "Take it away or train on it.",
            )
        )
        for part in parts.values()
        for name, paths in part.items()
        if name not in parts["train"]
    ]


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
        UserError: folders without folders in them hold no picture, pictures lie outside of any class, or a folder
            cannot be read; one line for each.
    """
    found: dict[str, list[Path]] = {}
    problems: list[str] = []
    seen = set()

    def unreadable(error: OSError) -> None:
        got = f"{error.filename} ({error.strerror})"
        problems.append(str(must("every folder", "readable", got, "Check its permissions.")))

    for folder, below, files in os.walk(where, followlinks=True, onerror=unreadable):
        here = Path(folder)
        below[:] = sorted(name for name in below if not name.startswith("."))
        if here.resolve() in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(here.resolve())
        paths = sorted(here / name for name in files if Path(name).suffix.lower() in SUFFIXES and name[0] != ".")
        if here == where:
            problems += [_outside(paths)] if paths else []
        elif paths:
            found[here.relative_to(where).as_posix()] = paths
        elif not below:
            rule, step = "a folder with at least one picture", f"Add pictures ({', '.join(sorted(SUFFIXES))})"
            problems.append(str(must("every class", rule, f"none in {here}", f"{step} or take the folder away.")))
    if not found and not problems:
        rule = "a folder with one folder of pictures per class"
        problems.append(str(must(str(where), rule, "an empty one", "Check the path.")))
    if problems:
        raise UserError("\n".join(problems))
    return dict(sorted(found.items()))


def _outside(paths: list[Path]) -> str:
    got = str(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    return str(must("every picture", "in the folder of its class", got, "Move it to a folder named by its class."))
