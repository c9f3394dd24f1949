"""Image tables as the Hugging Face hub stores them, in parquet files; no torch here."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from engram.backbone.data.names import Reading, is_text
from engram.backbone.data.table import Table
from engram.backbone.data.table_files import files_of
from engram.backbone.errors import UserError, must

T = TypeVar("T")
_MOST = 10  # classes that are named
NOTHING: Mapping[str, str] = {}
"""No column is asked for."""


@dataclass(frozen=True)
class Tables:
    """What ``parquet:PATH`` holds: the tables of each split, ``train`` first, their labels and the classes."""

    parts: Mapping[str, list[Table]]
    labels: Mapping[str, np.ndarray]
    """``[rows] int64`` of each split."""
    classes: tuple[str, ...]
    columns: Mapping[str, np.ndarray | list[str]]
    """What was asked for, row after row of all splits."""

    @property
    def pictures(self) -> TablePictures:
        return TablePictures([table for part in self.parts.values() for table in part])


def find_tables(path: str | None, which: Reading = "usual", asked: Mapping[str, str] = NOTHING) -> Tables:
    """The tables of `engram.backbone.data.table_files.files_of`, and the columns ``asked`` for, by what option each.

    The image column holds encoded pictures, or structs with a field ``bytes`` of them; the label column holds whole
    numbers and is called as one of `LABELS`. Class names come from the schema's ``huggingface`` metadata, or are
    the numbers.

    Raises:
        UserError: files are missing, damaged, or hold something else; one line for each.
    """
    where = Path(path or "").expanduser()
    problems: list[str] = []

    def each(work: Callable[[], T]) -> T | None:
        try:
            return work()
        except UserError as error:
            problems.append(str(error))
            return None

    files = files_of(where, which)
    found = {part: [each(partial(Table.open, file)) for file in held] for part, held in files.items()}
    parts = {part: [table for table in held if table is not None] for part, held in found.items()}
    opened = [table for held in parts.values() for table in held]
    names = each(lambda: class_names(opened)) if opened else None
    count = len(names) if names else None
    read = {part: [each(partial(table.labels, count)) for table in held] for part, held in parts.items()}
    values = {name: [each(partial(table.column, name, flag)) for table in opened] for name, flag in asked.items()}
    if problems:
        raise UserError("\n".join(problems))
    labels = {part: np.concatenate([held for held in several if held is not None]) for part, several in read.items()}
    if not names:
        largest = max(int(part.max()) for part in labels.values())
        names = tuple(str(label) for label in range(largest + 1))
    if which == "disjoint":
        _require_disjoint(labels, names)
    return Tables(parts, labels, names, {name: _whole(name, several) for name, several in values.items()})


def _whole(name: str, several: Sequence[np.ndarray | list[str] | None]) -> np.ndarray | list[str]:
    """A column of several tables."""
    arrays = [each for each in several if isinstance(each, np.ndarray)]
    if len({each.dtype for each in arrays}) == 1 and len(arrays) == len(several):
        return np.concatenate(arrays)
    if arrays:
        raise must(f"column {name}", "of one kind in all tables", "several", "Write them alike.")
    return [text for each in several if isinstance(each, list) for text in each]


def _require_disjoint(labels: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Refuse a class that stands in several splits."""
    holders: dict[int, list[str]] = {}
    for part, held in labels.items():
        for label in np.unique(held).tolist():
            holders.setdefault(label, []).append(part)
    twice = [f"{names[label]!r} in {' and in '.join(held)}" for label, held in holders.items() if len(held) > 1]
    if twice:
        got = ", ".join(twice[:_MOST]) + (f" and {len(twice) - _MOST} more" if len(twice) > _MOST else "")
        raise must("every class", "in one part alone", got, "Take it out of all but one, or leave --dataset.parts out.")


class TablePictures:
    """The pictures of several tables, one after another; keeps the row group it read last."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tuple(tables)
        self._groups = [(table, group) for table in tables for group in range(len(table.sizes))]
        self._table_ends = list(accumulate(sum(table.sizes) for table in tables))
        self._group_ends = list(accumulate(size for table in tables for size in table.sizes))
        self._held: tuple[int, list[bytes | None]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": None}

    def __len__(self) -> int:
        return self._table_ends[-1]

    def name(self, index: int) -> str:
        at = bisect_right(self._table_ends, index)
        table = self._tables[at]
        return f"{table.path} row {index - self._table_ends[at] + sum(table.sizes)}"

    def read(self, indices: Sequence[int]) -> list[bytes | None]:
        """Each row group is read once, however its rows are mixed."""
        out: list[bytes | None] = [None] * len(indices)
        wanted = sorted((bisect_right(self._group_ends, index), at, index) for at, index in enumerate(indices))
        for group, at, index in wanted:
            out[at] = self._rows(group)[index - self._group_ends[group]]  # counted from the end of the group
        return out

    def _rows(self, group: int) -> list[bytes | None]:
        if self._held is None or self._held[0] != group:
            self._held = None  # before the next is there
            table, number = self._groups[group]
            self._held = (group, table.pictures(number))
        return self._held[1]


def class_names(tables: Sequence[Table]) -> tuple[str, ...] | None:
    """Class names from the schemas, which must agree."""
    first = tables[0]
    expected = _names_of(first)
    for table in tables[1:]:
        if (found := _names_of(table)) != expected:
            raise must(
                "class names",
                f"the same in all tables as in {first.path}",
                f"{found} in {table.path}",
                "Write both with the same names.",
            )
        if table.label != first.label:
            raise must(
                "the column of labels",
                f"{first.label!r} as in {first.path}",
                f"{table.label!r} in {table.path}",
                "Rename it.",
            )
    return expected


def _names_of(table: Table) -> tuple[str, ...] | None:
    text = (table.metadata.metadata or {}).get(b"huggingface")
    if text is None:
        return None
    try:
        features: Mapping[str, Any] = json.loads(text)["info"]["features"]
        names = [str(name) for name in features[table.label].get("names") or ()]
        odd = next((name for name in names if not is_text(name)), None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        got = f"{type(error).__name__}: {error} in {table.path}"
        raise must(
            "the huggingface metadata", "JSON that describes the columns", got, "Write the table again."
        ) from error
    if odd is not None:
        raise must("the name of a class", "in UTF-8", f"{odd!a} in {table.path}", "Write the table again.")
    return tuple(names) or None
