"""Image tables as the Hugging Face hub stores them, in parquet files; no torch here."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backbone.errors import UserError, must

LABELS = ("label", "labels", "fine_label", "coarse_label")
_PART = re.compile(r"(train|test|validation)(?=[-.])")
T = TypeVar("T")
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)\.parquet")


@dataclass(frozen=True)
class Tables:
    """What ``parquet:PATH`` holds: the tables of each split, ``train`` first, their labels and the classes."""

    parts: Mapping[str, list[Table]]
    labels: Mapping[str, np.ndarray]
    """``[rows] int64`` of each split."""
    classes: tuple[str, ...]

    @property
    def pictures(self) -> TablePictures:
        return TablePictures([table for part in self.parts.values() for table in part])


def find_tables(path: str | None) -> Tables:
    """A file is one split. In a folder, ``train-*``, ``test-*`` and ``validation-*`` files are splits.

    The image column holds encoded pictures, or structs with a field ``bytes`` of them; the label column holds whole
    numbers and is called as one of `LABELS`. Class names come from the schema's ``huggingface`` metadata, or are
    the numbers. Without ``test-*`` files, ``validation-*`` is the test set; with both, ``validation-*`` is left out.

    Raises:
        UserError: files are missing, damaged, or hold something else; one line for each.
    """
    where = Path(path or "").expanduser()
    if not where.exists():
        raise must(
            "parquet:PATH", "a parquet file or a folder of them", f"nothing at {where.absolute()}", "Check the path."
        )
    problems: list[str] = []

    def each(work: Callable[[], T]) -> T | None:
        try:
            return work()
        except UserError as error:
            problems.append(str(error))
            return None

    found = {part: [each(partial(Table.open, file)) for file in files] for part, files in files_of(where).items()}
    parts = {part: [table for table in held if table is not None] for part, held in found.items()}
    opened = [table for held in parts.values() for table in held]
    names = each(lambda: class_names(opened)) if opened else None
    count = len(names) if names else None
    read = {part: [each(partial(table.labels, count)) for table in held] for part, held in parts.items()}
    if problems:
        raise UserError("\n".join(problems))
    labels = {part: np.concatenate([held for held in several if held is not None]) for part, several in read.items()}
    largest = max(int(part.max()) for part in labels.values())
    return Tables(parts, labels, names or tuple(str(label) for label in range(largest + 1)))


def files_of(where: Path) -> dict[str, list[Path]]:
    """The files of each split, ``train`` first."""
    if where.is_file():
        return {"train": [where]}
    files = sorted(where.glob("*.parquet")) or sorted((where / "data").glob("*.parquet"))
    if not files:
        raise must(
            "parquet:PATH",
            "a parquet file or a folder of them",
            f"{where.absolute()} with no *.parquet in it",
            "Check the path.",
        )
    _check_shards(files)
    found: dict[str, list[Path]] = {}
    for file in files:
        match = _PART.match(file.name)
        found.setdefault(match[1] if match else "", []).append(file)
    if set(found) == {""}:
        return {"train": files}
    if "" in found:
        raise must(
            f"every table in {where}",
            "called train-*, test-* or validation-*",
            found[""][0].name,
            "Rename it, or give one file alone.",
        )
    if "train" not in found:
        raise must(
            f"{where}",
            "a folder with train-*.parquet",
            f"only {files[0].name}",
            f"Give the file itself: parquet:{files[0]}",
        )
    if "test" in found and "validation" in found:
        logging.getLogger(__name__).warning("%s: validation-* is left out, as there is test-*", where)
    test = found.get("test") or found.get("validation")
    return {"train": found["train"], "test": test} if test else {"train": found["train"]}


def _check_shards(files: Sequence[Path]) -> None:
    """Find the shard that is missing from a numbered series."""
    names = {file.name for file in files}
    for file in files:
        match = _SHARD.fullmatch(file.name)
        if match:
            stem, digits, count = match[1], len(match[2]), match[3]
            expected = [f"{stem}-{index:0{digits}d}-of-{count}.parquet" for index in range(int(count))]
            missing = next((name for name in expected if name not in names), None)
            if missing:
                raise must(f"the tables in {file.parent}", "complete", f"{file.name} without {missing}", "Restore it.")


@dataclass(frozen=True)
class Table:
    """One parquet file; it is opened anew for every read, so that it can be sent to other processes."""

    path: Path
    metadata: pq.FileMetaData
    image: str
    """The column of encoded pictures, ``img.bytes`` for structs."""
    label: str
    sizes: tuple[int, ...]
    """Rows in each row group."""

    @classmethod
    def open(cls, path: Path) -> Table:
        try:
            with pq.ParquetFile(path) as file:
                metadata, schema = file.metadata, file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
        if not metadata.num_rows:
            raise must("a table", "at least one row long", f"an empty one: {path}", "Take it out or fill it.")
        sizes = tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        return cls(path, metadata, _image_column(schema, path), _label_column(schema, path), sizes)

    def labels(self, classes: int | None) -> np.ndarray:
        """``[rows] int64``; every one checked, against the number of classes if that is known."""
        column = self.read(None, self.label)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise must("a label", "given", f"none in {self.path} row {row}", "Fill it in or leave the row out.")
        values = column.to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero((values < 0) | (values >= (2**31 if classes is None else classes)))
        if len(wrong):
            rule = (
                "at least 0" if classes is None else f"from 0 to {classes - 1}, as the schema names {classes} classes"
            )
            got = f"{values[wrong[0]]} in {self.path} row {wrong[0]}"
            raise must("a label", rule, got, "Mend it; a split with hidden labels (-1) cannot be used.")
        return values.astype(np.int64)

    def read(self, group: int | None, column: str) -> pa.Array:
        """One column of one row group, or of the whole file."""
        try:
            with pq.ParquetFile(self.path, metadata=self.metadata, page_checksum_verification=True) as file:
                groups = range(file.num_row_groups) if group is None else [group]
                table = file.read_row_groups(list(groups), columns=[column], use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error
        values = table.column(0).combine_chunks()
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        return values.field(0) if isinstance(values, pa.StructArray) else values


class TablePictures:
    """The pictures of several tables, one after another; keeps the row group it read last."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tuple(tables)
        self._groups = [(table, group) for table in tables for group in range(len(table.sizes))]
        self._table_ends = np.cumsum([sum(table.sizes) for table in tables])
        self._group_ends = np.cumsum([size for table in tables for size in table.sizes])
        self._held: tuple[int, list[bytes | None]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": None}

    def __len__(self) -> int:
        return int(self._table_ends[-1])

    def name(self, index: int) -> str:
        at = int(np.searchsorted(self._table_ends, index, side="right"))
        table = self._tables[at]
        return f"{table.path} row {index - int(self._table_ends[at]) + sum(table.sizes)}"

    def read(self, indices: Sequence[int]) -> list[bytes | None]:
        """Each row group is read once, however its rows are mixed."""
        out: list[bytes | None] = [None] * len(indices)
        wanted = np.asarray(indices, np.int64)
        groups = np.searchsorted(self._group_ends, wanted, side="right")
        starts = np.concatenate([[0], self._group_ends])[groups]
        order = np.argsort(groups, kind="stable")
        rows = (wanted - starts)[order].tolist()
        for at, group, row in zip(order.tolist(), groups[order].tolist(), rows, strict=True):
            out[at] = self._rows(group)[row]
        return out

    def _rows(self, group: int) -> list[bytes | None]:
        if self._held is None or self._held[0] != group:
            table, number = self._groups[group]
            self._held = (group, table.read(number, table.image).to_pylist())
        return self._held[1]


def _image_column(schema: pa.Schema, path: Path) -> str:
    """The one column of pictures; ``image`` or ``img`` if several could be."""
    found: dict[str, str] = {}
    for column in schema:
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            found[column.name] = f"{column.name}.bytes"
        elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            found[column.name] = column.name
    chosen = next((found[name] for name in ("image", "img") if name in found), None)
    if chosen or len(found) == 1:
        return chosen or next(iter(found.values()))
    got = f"{', '.join(found) or 'none'} of {', '.join(schema.names)} in {path}"
    raise must("the column of pictures", "binary, or a struct with bytes, and called image or img", got, "Rename it.")


def _label_column(schema: pa.Schema, path: Path) -> str:
    for name in LABELS:
        if name in schema.names:
            if not pa.types.is_integer(schema.field(name).type):
                got = f"{schema.field(name).type} in column {name} of {path}"
                raise must("labels", "whole numbers", got, "Number the classes from 0.")
            return name
    raise must(
        "the column of labels",
        f"called one of {', '.join(LABELS)}",
        f"{', '.join(schema.names)} in {path}",
        "Rename it.",
    )


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
        names = features[table.label].get("names")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise must(
            "the huggingface metadata",
            "JSON that describes the columns",
            f"{error!r} in {table.path}",
            "Write the table again.",
        ) from error
    return tuple(str(name) for name in names) if names else None


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return must("a table", "a readable parquet file", f"{path} ({reason})", "Restore it.")
