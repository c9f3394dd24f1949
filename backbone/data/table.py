"""One parquet file of labelled pictures; no torch here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engram.backbone.data.options import COLUMNS
from engram.backbone.errors import UserError, must

LABELS = ("label", "labels", "fine_label", "coarse_label")
MOST_CLASSES = 2**16
"""Without names classes are numbered, and so many are believed; in a table of more rows as many as there are rows."""
_UNPACKED, _TIMES = 64 * 2**20, 200  # a row group's bytes when unpacked: so many, and so many times the file's
_AT_ONCE = 16  # pictures that are unpacked before somebody looks at how large they are


@dataclass(frozen=True)
class Table:
    """It is opened anew for every read, so that it can be sent to other processes."""

    path: Path
    metadata: pq.FileMetaData
    image: str
    """The column of encoded pictures, ``img.bytes`` for structs."""
    label: str
    sizes: tuple[int, ...]
    """Rows in each row group."""
    limit: int
    """Bytes that the pictures of a row group may take, whatever the file says."""

    @classmethod
    def open(cls, path: Path) -> Table:
        """Read what the file says of itself.

        Raises:
            UserError: it is damaged, holds something else, or claims what its size makes unlikely.
        """
        with _damaged(path), pq.ParquetFile(path) as file:
            metadata, schema, size = file.metadata, file.schema_arrow, path.stat().st_size
        if not metadata.num_rows:
            raise must("a table", "at least one row long", f"an empty one: {path}", "Take it out or fill it.")
        sizes = tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        if min(sizes, default=0) < 0 or not sum(sizes) == metadata.num_rows <= size:
            got = f"{metadata.num_rows:,} in {size:,} bytes: {path}"
            raise must("the rows of a table", "fewer than its bytes", got, "Restore it.")
        limit = _UNPACKED + _TIMES * size
        for group in range(metadata.num_row_groups):
            if (claimed := metadata.row_group(group).total_byte_size) > limit:
                raise _too_much(claimed, limit, path)
        found = cls(path, metadata, _image_column(schema, path), _label_column(schema, path), sizes, limit)
        if found.image.endswith(".bytes") and all(blob is None for blob in found._first()):
            raise _paths_alone(f"column {found.image.removesuffix('.bytes')} of {path}")
        return found

    def labels(self, classes: int | None) -> np.ndarray:
        """``[rows] int64``; every one checked, against the number of classes if that is known."""
        with _damaged(self.path), self._open() as file:
            column = file.read(columns=[self.label], use_threads=False).column(0)
            if len(column) != sum(self.sizes):
                raise OSError(f"{len(column)} labels in {sum(self.sizes)} rows")
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise must("a label", "given", f"none in {self.path} row {row}", "Fill it in or leave the row out.")
        values = column.to_numpy(zero_copy_only=False)
        limit = max(MOST_CLASSES, len(values)) if classes is None else classes
        wrong = np.flatnonzero((values < 0) | (values >= limit))
        if len(wrong):
            why = "classes without names are numbered" if classes is None else f"the schema names {classes} classes"
            got = f"{values[wrong[0]]} in {self.path} row {wrong[0]}"
            step = "Mend it; a split with hidden labels (-1) cannot be used."
            raise must("a label", f"from 0 to {limit - 1}, as {why}", got, step)
        return values.astype(np.int64)

    def column(self, name: str, flag: str = COLUMNS) -> np.ndarray | list[str]:
        """One more column, ``[rows]`` numbers or texts; ``flag`` is the option that asks for it.

        Raises:
            UserError: the table has no such column, it holds something else (for another option than `COLUMNS` that is
                fractions, too), or a value is missing.
        """
        with _damaged(self.path), self._open() as file:
            known = file.schema_arrow
            rule, got = f"a column of {self.path} ({', '.join(known.names)})", repr(name)
            if name not in known.names:
                raise must(f"every name in {flag}" if flag == COLUMNS else flag, rule, got, "Name one of these.")
            column = file.read(columns=[name], use_threads=False).column(0)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise must(f"a value of {name}", "given", f"none in {self.path} row {row}", "Fill it in.")
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return column.to_pylist()
        fractions = flag == COLUMNS and pa.types.is_floating(kind)
        if not (pa.types.is_integer(kind) or fractions or pa.types.is_boolean(kind)):
            rule = f"of {'numbers' if flag == COLUMNS else 'whole numbers'} or texts"
            raise must(f"a column of {flag}", rule, f"{column.type} in column {name} of {self.path}", "Name another.")
        values = np.array(column.to_pylist())
        return values.astype(np.int64) if pa.types.is_integer(kind) else values

    def pictures(self, group: int) -> list[bytes | None]:
        """The encoded pictures of a row group, in the order of its rows; equal ones are one object.

        Raises:
            UserError: the file is damaged, or unpacks to more than is likely.
        """
        held: dict[bytes, bytes] = {}
        found: list[bytes | None] = []
        size = 0
        with _damaged(self.path), self._open() as file:
            for batch in self._batches(file, group):
                for blob in _blobs(batch.column(0)):
                    if blob is not None and blob not in held:
                        held[blob] = blob
                        size += len(blob)
                    found.append(None if blob is None else held[blob])
                if size > self.limit:
                    raise _too_much(size, self.limit, self.path)
            if len(found) != self.sizes[group]:
                raise OSError(f"{len(found)} pictures in {self.sizes[group]} rows")
        return found

    def _first(self) -> list[bytes | None]:
        """The first few pictures."""
        group = next(group for group, size in enumerate(self.sizes) if size)
        with _damaged(self.path), self._open() as file:
            return [blob for batch in islice(self._batches(file, group), 1) for blob in _blobs(batch.column(0))]

    def _batches(self, file: pq.ParquetFile, group: int) -> Iterator[pa.RecordBatch]:
        return file.iter_batches(_AT_ONCE, [group], [self.image], use_threads=False)

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.path, metadata=self.metadata, page_checksum_verification=True)


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Whatever pyarrow finds wrong is one line."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # names that are not UTF-8, say
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise must("a table", "a readable parquet file", f"{path} ({reason})", "Restore it.") from error


def _blobs(values: pa.Array) -> list[bytes | None]:
    values = values.field(0) if isinstance(values, pa.StructArray) else values
    return (values.dictionary_decode() if isinstance(values, pa.DictionaryArray) else values).to_pylist()


def _image_column(schema: pa.Schema, path: Path) -> str:
    """The one column of pictures; ``image`` or ``img`` if several could be."""
    found: dict[str, str] = {}
    for column in schema:
        kind = column.type
        inside = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
        if inside >= 0 and _holds_bytes(kind.field(inside).type):
            found[column.name] = f"{column.name}.bytes"
        elif _holds_bytes(kind):
            found[column.name] = column.name
    chosen = next((found[name] for name in ("image", "img") if name in found), None)
    if chosen or len(found) == 1:
        return chosen or next(iter(found.values()))
    rule = "the only one that is binary or a struct with bytes, or called image or img"
    if found:
        got = f"{', '.join(found)} of {', '.join(schema.names)} in {path}"
        raise must("the column of pictures", rule, got, "Rename it.")
    for column in schema:
        if pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0:
            raise _paths_alone(f"column {column.name} of {path}")
    got = f"{', '.join(f'{column.name} ({column.type})' for column in schema)} in {path}"
    raise must("the column of pictures", rule, got, "Write the bytes of picture files into it.")


def _holds_bytes(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _label_column(schema: pa.Schema, path: Path) -> str:
    for name in LABELS:
        if name in schema.names:
            if not pa.types.is_integer(schema.field(name).type):
                got = f"{schema.field(name).type} in column {name} of {path}"
                raise must("labels", "whole numbers", got, "Number the classes from 0.")
            return name
    got = f"{', '.join(schema.names)} in {path}"
    raise must("the column of labels", f"called one of {', '.join(LABELS)}", got, "Rename it.")


def _too_much(size: int, limit: int, path: Path) -> UserError:
    rule = f"at most {limit:,} bytes when unpacked, as large as they are in the file"
    return must("the pictures of a row group", rule, f"{size:,} in {path}", "Restore it, or write it uncompressed.")


def _paths_alone(where: str) -> UserError:
    step = "Write the pictures into the table, or give their folder: folder:PATH."
    return must("the pictures of a table", "in it, as bytes", f"paths alone in {where}", step)
