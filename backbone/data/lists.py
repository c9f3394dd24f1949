"""Parts that files beside the pictures list, as few-shot sets are published with classes of their own; no torch here.

Two layouts: of mini-ImageNet, a table of each part, ``train.csv``, ``val.csv`` and ``test.csv``, with the columns
``filename`` and ``label``, beside the folder ``images``; of CIFAR-FS, a list of classes ``train.txt``, ... in a folder
of ``splits``, beside the folder ``data`` with a folder for each class.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from engram.backbone.data.class_folders import Parts, class_folders, find_parts, folder_of, in_several
from engram.backbone.data.files import read
from engram.backbone.data.names import TRAIN, Reading, shown, split_of, wanted
from engram.backbone.errors import UserError, must

_IMAGES, _DATA, _SPLITS = "images", "data", "splits"
_FILE, _LABEL = "filename", "label"


def folder_parts(path: str | None, which: Reading) -> Parts:
    """What ``folder:PATH`` holds; parts of classes of their own as lists in PATH say, if there are any.

    Raises:
        UserError: as `find_parts`, or a list is wrong, one line for each thing.
    """
    where = folder_of(path)
    lists = list_files(where) if which == "disjoint" else {}
    if not lists:
        return find_parts(path, which)
    lists = {
        part: files[0] for part, files in wanted(where, "folder", {k: [v] for k, v in lists.items()}, which).items()
    }
    tables = lists[TRAIN].suffix == ".csv"
    parts = _from_tables(where / _IMAGES, lists) if tables else _from_names(where / _DATA, lists)
    if problems := in_several(parts):
        raise UserError("\n".join(problems))
    return parts


def list_files(where: Path) -> dict[str, Path]:
    """The file that lists each part of the set in a folder; none where its parts are not listed.

    Raises:
        UserError: there are several lists of one part.
    """
    found = []
    if (where / _IMAGES).is_dir():
        found = sorted(where.glob("*.csv"))
    if not found and (where / _DATA).is_dir():
        found = sorted((where / _SPLITS).glob("*.txt")) + sorted((where / _SPLITS).glob("*/*.txt"))
    lists: dict[str, Path] = {}
    for file in found:
        part = split_of(file.stem)
        if part in lists:
            got, step = f"{shown(lists[part])} and {shown(file)}", "Take away all but one of each part."
            raise must(f"the list of the {part} part", "one file", got, step)
        if part:
            lists[part] = file
    return lists


def _from_tables(images: Path, lists: Mapping[str, Path]) -> dict[str, dict[str, list[Path]]]:
    """The pictures of every class of each part, by tables of their names and labels."""
    problems: list[str] = []
    there = {file.name for file in images.iterdir()}
    parts: dict[str, dict[str, list[Path]]] = {part: {} for part in lists}
    for part, file in lists.items():
        rows = list(csv.DictReader(io.StringIO(_text(file))))
        lost = [line for line, row in enumerate(rows, 2) if not row.get(_FILE) or not row.get(_LABEL)]
        if lost or not rows:
            rule, got = (
                f"a table with {_FILE} and {_LABEL} in every row",
                f"none in row {[*lost, 2][0]} of {shown(file)}",
            )
            problems.append(str(must(f"the list of the {part} part", rule, got, "Mend it.")))
            continue
        missing = [row[_FILE] for row in rows if row[_FILE] not in there]
        problems += _missing(f"every picture of {shown(file)}", images, missing)
        for row in rows:
            parts[part].setdefault(row[_LABEL], []).append(images / PurePosixPath(row[_FILE]).name)
    if problems:
        raise UserError("\n".join(problems))
    return {part: {name: sorted(set(held[name])) for name in sorted(held)} for part, held in parts.items()}


def _from_names(data: Path, lists: Mapping[str, Path]) -> dict[str, dict[str, list[Path]]]:
    """The pictures of every class of each part, by lists of the classes' names, one a line."""
    held = class_folders(data)
    names = {part: [line.strip() for line in _text(file).splitlines() if line.strip()] for part, file in lists.items()}
    problems: list[str] = []
    for part, file in lists.items():
        problems += _missing(f"every class of {shown(file)}", data, [name for name in names[part] if name not in held])
        if not names[part]:
            step = "Write the names of classes into it, one a line."
            problems.append(str(must(f"the list of the {part} part", "one of classes", f"an empty one: {file}", step)))
    if problems:
        raise UserError("\n".join(problems))
    return {part: {name: held[name] for name in sorted(set(each))} for part, each in names.items()}


def _missing(what: str, where: Path, lost: list[str]) -> list[str]:
    if not lost:
        return []
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    return [str(must(what, f"in {shown(where)}", f"nothing called {shown(lost[0])}{more}", "Add what is missing."))]


def _text(file: Path) -> str:
    try:
        return read(file, "a list of a set's parts").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise must("a list of a set's parts", "in UTF-8", f"{shown(file)} ({error})", "Mend it.") from error
