"""Which parquet files a path holds, and which split each of them belongs to; no torch here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from engram.backbone.data.files import unfit
from engram.backbone.data.names import (
    TRAIN,
    USUAL,
    VALIDATION,
    Reading,
    hints,
    is_text,
    shown,
    split_of,
    wanted,
    without_validation,
)
from engram.backbone.errors import UserError, must

_ENDING = re.compile(r"(\.(snappy|gz|gzip|zstd|lz4|brotli))?\.parquet$", re.IGNORECASE)
_SHARD = re.compile(r"(.*)[-_](\d+)[-_]of[-_](\d+)(?:-[0-9a-f]+)?", re.IGNORECASE)


def files_of(where: Path, which: Reading = "usual") -> dict[str, list[Path]]:
    """The files of each part that is to be read, ``train`` first.

    A file is one split. In a folder, or in ``data`` in it, files and folders of files may be called as splits
    (`engram.backbone.data.names.split_of`); when no name sounds like one, all files are one split.

    Raises:
        UserError: there is none, a name sounds like a split but is none, a shard is missing, or some are no files.
    """
    if not where.exists():
        got = f"nothing at {shown(where.absolute())}"
        raise must("parquet:PATH", "a parquet file or a folder of them", got, "Check the path.")
    chosen = _splits(where, which) if where.is_dir() else {TRAIN: [where]}
    if which == "own" and VALIDATION not in chosen:
        raise without_validation(where)
    problems = [problem for files in chosen.values() for file in files if (problem := _problem(file))]
    if problems:
        raise UserError("\n".join(map(str, problems)))
    return chosen


def _splits(where: Path, which: Reading) -> dict[str, list[Path]]:
    found = _tables(where) or _tables(where / "data")
    if not found:
        got = f"{shown(where.absolute())} with no *.parquet in it"
        raise must("parquet:PATH", "a parquet file or a folder of them", got, "Check the path.")
    splits: dict[str, list[Path]] = {}
    for file, split in found:
        splits.setdefault(split or "", []).append(file)
    unknown = splits.get("", [])
    strange = unknown if len(splits) > 1 else [file for file in unknown if hints(_stem(file))]
    if strange:
        step = f"Rename it, or give one file alone: parquet:{shown(strange[0])}"
        raise must(f"every table in {shown(where)}", f"called as a split ({USUAL})", shown(strange[0].name), step)
    for files in splits.values():
        _check_shards(files)
    return {TRAIN: unknown} if unknown else wanted(where, "parquet", splits, which)


def _problem(file: Path) -> UserError | None:
    if not is_text(str(file)):  # others pyarrow does not take
        return must("the name of a table", "in UTF-8", shown(file), "Rename it.")
    return unfit(file, "a table", most=None)


def _tables(where: Path) -> list[tuple[Path, str | None]]:
    """The tables in a folder and in its folders that are called as splits, each with its split."""
    try:
        entries = sorted(where.iterdir()) if where.is_dir() else []
        held = [(entry, sorted(entry.iterdir())) for entry in entries if entry.is_dir() and split_of(_stem(entry))]
    except OSError as error:
        got = f"{shown(error.filename)} ({error.strerror})"
        raise must("every folder", "readable", got, "Check its permissions.") from error
    found = [(file, split_of(_stem(file))) for file in entries if _is_table(file)]
    for folder, files in held:
        split = split_of(_stem(folder))
        for file in files:
            if _is_table(file):
                found.append((file, split))
                if split_of(_stem(file)) not in (None, split):
                    raise must(f"every table in {shown(folder)}", f"of the {split} split", shown(file.name), "Move it.")
    return found


def _is_table(path: Path) -> bool:
    return bool(_ENDING.search(path.name)) and not path.name.startswith(".") and not path.is_dir()


def _stem(path: Path) -> str:
    return _ENDING.sub("", path.name)


def _check_shards(files: Sequence[Path]) -> None:
    """Find the shard of a numbered series that is missing, or that belongs to another series of the same name."""
    series: dict[tuple[Path, str], list[tuple[Path, re.Match[str]]]] = {}
    for file in files:
        if shard := _SHARD.fullmatch(_stem(file)):
            series.setdefault((file.parent, shard[1]), []).append((file, shard))
    for (folder, name), held in series.items():
        file, shard = held[0]
        numbers, total = {int(each[2]) for _, each in held}, int(shard[3])
        first = min(numbers | {1})
        odd = [other for other, each in held if int(each[3]) != total or int(each[2]) >= first + total]
        if odd or len(numbers) < len(held):
            got = f"{shown((odd or [held[-1][0]])[0].name)} beside {shown(file.name)}"
            raise must(f"the tables in {shown(folder)}", "of one series", got, "Take away what is of another.")
        lost = next((number for number in range(first, first + total) if number not in numbers), None)
        if lost is not None:
            got = f"{shown(file.name)} without {shown(name)}-{lost:0{len(shard[2])}d}-of-{shard[3]}"
            raise must(f"the tables in {shown(folder)}", "complete", got, "Restore it.")
