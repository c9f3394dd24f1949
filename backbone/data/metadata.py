"""What is told of the pictures in a folder beside their classes, by their names or by files beside them; no torch here.

The files are those of the Hugging Face hub's image folders: ``metadata.csv`` in any folder, whose column ``file_name``
holds the places of pictures below that folder.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from engram.backbone.data.class_folders import METADATA
from engram.backbone.data.files import read
from engram.backbone.data.names import shown
from engram.backbone.data.options import COLUMNS, FolderOptions
from engram.backbone.errors import UserError, must

FILE = "file_name"
_PATTERN = "--dataset.name-pattern"


def described(where: Path, paths: Sequence[Path], options: FolderOptions) -> dict[str, list[str]]:
    """The columns that ``options`` ask for, a value for each picture.

    Args:
        where: the folder of the whole set.
        paths: the pictures.
        options: which columns, and what the names of files tell.

    Raises:
        UserError: one line for each thing that is wrong.
    """
    problems: list[str] = []

    def each(tell: Callable[[], dict[str, list[str]]]) -> dict[str, list[str]]:
        try:
            return tell()
        except UserError as error:
            problems.append(str(error))
            return {}

    named = each(partial(_from_names, paths, options.name_pattern))
    lost = bool(problems)  # what the pattern would have told is not known
    asked = {name: flag for name, flag in options.asked.items() if flag == COLUMNS or not (lost or name in named)}
    found = each(partial(_from_files, where, paths, asked, tuple(named)))
    if twice := sorted(found.keys() & named):
        step = "Call the group of the pattern otherwise."
        problems.append(str(must(f"column {twice[0]!r}", "told once", "both in names and in files", step)))
    if problems:
        raise UserError("\n".join(problems))
    return found | named


def metadata_files(where: Path, paths: Iterable[Path]) -> list[Path]:
    """The files of this kind between ``where`` and its pictures, in order."""
    holding = {path.parent for path in paths}
    folders = {up for folder in holding for up in (folder, *folder.parents) if up == where or where in up.parents}
    return sorted(folder / METADATA for folder in folders if (folder / METADATA).exists())


def _from_files(
    where: Path, paths: Sequence[Path], asked: Mapping[str, str], named: Sequence[str]
) -> dict[str, list[str]]:
    """The columns ``asked`` for, each by an option; ``named`` are those that names of files tell."""
    files = metadata_files(where, paths) if set(asked) - {FILE} else []
    tables = [(file.parent, _rows(file)) for file in files]
    known = sorted({name for _, rows in tables for row in rows for name in row})
    unknown: dict[str, list[str]] = {}
    for name, flag in asked.items():
        if name not in (*known, FILE):
            unknown.setdefault(flag, []).append(repr(name))
    problems: list[str] = []
    for flag, names in unknown.items():
        there, what = (", ".join(each) or "there is none" for each in (known, named))
        told = f"{METADATA} in {shown(where)} ({there})"
        rule = f"{FILE}, or columns of {told}" if flag == COLUMNS else f"a group of {_PATTERN} ({what}) or in {told}"
        step = "Name one of these, or add it."
        problems.append(str(must(f"every name in {flag}" if flag == COLUMNS else flag, rule, ", ".join(names), step)))
    if problems:
        raise UserError("\n".join(problems))
    held: dict[Path, dict[str, str]] = {}
    for folder, rows in tables:
        for row in rows:
            held.setdefault(folder / row[FILE], {}).update(row)
    found = {name: [held.get(path, {}).get(name, "") for path in paths] for name in asked if name != FILE}
    for name, values in found.items():
        lost = [path for path, value in zip(paths, values, strict=True) if not value]
        if lost:
            got = f"none for {shown(lost[0])}" + (f" and {len(lost) - 1} more" if len(lost) > 1 else "")
            raise must(f"the value of {name!r}", f"in {METADATA} for every picture", got, "Add what is missing.")
    if FILE in asked:
        found[FILE] = [shown(path.relative_to(where).as_posix()) for path in paths]
    return found


def _rows(file: Path) -> list[dict[str, str]]:
    """The rows of one file, each with its ``file_name``; values that are missing are left out."""
    try:
        rows: list[Mapping[str | None, str | None]] = list(
            csv.DictReader(io.StringIO(read(file, "a table of what pictures show").decode("utf-8-sig")), strict=True)
        )
    except (UnicodeDecodeError, csv.Error) as error:
        got = f"{shown(file)} ({error})"
        raise must("a table of what pictures show", "a CSV file in UTF-8", got, "Mend it.") from error
    named = [{name: value for name, value in row.items() if name and value} for row in rows]
    if lost := [line for line, row in enumerate(named, 2) if FILE not in row]:
        rule = f"the place of its picture in the column {FILE}"
        raise must(f"every row of {shown(file)}", rule, f"none in row {lost[0]}", "Write it in.")
    return [{name: value for name, value in row.items() if isinstance(value, str)} for row in named]


def _from_names(paths: Sequence[Path], pattern: str | None) -> dict[str, list[str]]:
    """What the named groups of a pattern find in names of files."""
    if pattern is None:
        return {}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise must(_PATTERN, "a regular expression", f"{pattern!r} ({error})", "Mend it.") from error
    if not compiled.groupindex:
        raise must(_PATTERN, "one with named groups", repr(pattern), "Write (?P<name>...) around what to read.")
    found = [compiled.match(path.name) for path in paths]
    fits = [match is not None and None not in match.groupdict().values() for match in found]
    if lost := [path for path, fit in zip(paths, fits, strict=True) if not fit]:
        got = f"{shown(lost[0])}" + (f" and {len(lost) - 1} more" if len(lost) > 1 else "")
        raise must("the name of every picture", f"begun as {_PATTERN} {pattern} says", got, "Loosen the pattern.")
    groups = [match.groupdict() for match in found if match]
    return {name: [shown(each[name]) for each in groups] for name in compiled.groupindex}
