"""``.npy``, ``.npz`` and HDF5: arrays of x, y, t and p by their usual names; no torch here."""

from __future__ import annotations

import atexit
import io
import math
import os
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np

from engram.backbone.data.files import MOST_BYTES
from engram.backbone.data.recordings.events import Damaged, Events, within
from engram.backbone.hdf5.reading import Reader, Tree

_NAMES: Mapping[str, tuple[str, ...]] = {
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "polarities"),
}
_MICROSECONDS: Mapping[str, float] = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_BAD_HEADER = (ValueError, TypeError, LookupError, SyntaxError, tokenize.TokenError, RecursionError, OverflowError)
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, RuntimeError, NotImplementedError)


def decode_npy(blob: bytes, unit: str) -> Events:
    """One array with fields x, y, t and p, whose times count ``unit``: s, ms, us or ns."""
    return _from_fields([_fields(_array(blob))], unit)


def decode_npz(blob: bytes, unit: str) -> Events:
    """Arrays x, y, t and p, or one array with these fields."""
    held: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            members = archive.infolist()
            if (size := sum(member.file_size for member in members)) > MOST_BYTES:
                raise Damaged(f"it unfolds to {size:,} bytes, and at most {MOST_BYTES:,} are read")
            for member in members:
                with archive.open(member) as file:
                    held[member.filename.removesuffix(".npy")] = _array(file.read())
    except Damaged:
        raise
    except _BAD_ZIP as error:
        raise Damaged(f"it is no archive of arrays: {' '.join(str(error).split())}") from error
    return _from_fields([held, *map(_fields, held.values())], unit)


def decode_hdf5(blob: bytes, unit: str) -> Events:
    """Data sets x, y, t and p in one group."""
    return _from_fields(list(_groups(_reader(os.getpid()).tree(blob, "a recording"))), unit)


@cache
def _reader(process: int) -> Reader:
    """The reader of this process: a copy of it by a fork would share its pipes."""
    reader = Reader()
    atexit.register(reader.__exit__, None, None, None)
    return reader


def _groups(tree: Tree) -> Iterator[dict[str, np.ndarray]]:
    yield {name: held for name, held in tree.items() if isinstance(held, np.ndarray)}
    for held in tree.values():
        if isinstance(held, dict):
            yield from _groups(held)


def _array(blob: bytes) -> np.ndarray:
    """The array in the bytes of an ``.npy`` file."""
    file = io.BytesIO(blob)
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise Damaged(f"it is of version {version[0]}.{version[1]}, and 1.0 and 2.0 are read")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers as Python 2 wrote them
            shape, _, kind = _HEADERS[version](file)
    except Damaged:
        raise
    except _BAD_HEADER as error:
        raise Damaged(f"the header of an array is none: {' '.join(str(error).split())[:200]}") from error
    if kind.hasobject or not kind.itemsize or len(shape) != 1:
        raise Damaged(f"it has an array {list(shape)} of {kind}, where each is to be one row of numbers")
    if (rest := len(blob) - file.tell()) != math.prod(shape) * kind.itemsize:
        raise Damaged(f"it says {shape[0]:,} values of {kind.itemsize} bytes, and {rest:,} bytes are there")
    return np.frombuffer(blob, kind, shape[0], file.tell())


def _fields(array: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array[name] for name in array.dtype.names or ()}


def _from_fields(candidates: list[dict[str, np.ndarray]], unit: str) -> Events:
    """Events of the one candidate that has all four."""
    found = [named for each in candidates if len(named := _named(each)) == len(_NAMES)]
    if len(found) != 1:
        there = ", ".join(sorted({name for each in candidates for name in each})[:8]) or "nothing"
        what = "x, y, t and p more than once" if found else f"no arrays x, y, t and p, but {there}"
        raise Damaged(f"it has {what}")
    (named,) = found
    lengths = {len(values) for values in named.values()}
    if len(lengths) > 1:
        raise Damaged(f"its arrays are of several lengths: {', '.join(map(str, sorted(lengths)))}")
    within(lengths.pop())
    x, y, p = (_whole(named[name], name) for name in "xyp")
    if len(p) and (p.min() < -1 or p.max() > 1):
        raise Damaged(f"polarity is {int(p.min())} to {int(p.max())}, where it is 0 and 1, or -1 and 1")
    return Events.of(_times(named["t"], unit), x, y, p > 0)


def _named(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of numbers that are called as one of ours, by our name."""
    small = {
        name.lower(): values for name, values in arrays.items() if values.ndim == 1 and values.dtype.kind in "iufb"
    }
    return {ours: small[name] for ours, names in _NAMES.items() for name in names if name in small}


def _whole(values: np.ndarray, name: str) -> np.ndarray:
    """Whole numbers ``int64``, also where they are stored as floating point."""
    if values.dtype.kind == "f" and not bool((np.isfinite(values) & (values == np.round(values))).all()):
        raise Damaged(f"{name} has values that are no whole numbers")
    if len(values) and not -(2**31) <= float(values.min()) <= float(values.max()) < 2**31:
        raise Damaged(f"{name} has values that are no places")
    return values.astype(np.int64)


def _times(values: np.ndarray, unit: str) -> np.ndarray:
    if values.dtype.kind in "iub" and unit == "us":
        if len(values) and int(values.max()) >= 2**62:
            raise Damaged("t has values that are no times")
        return values.astype(np.int64)
    scaled = np.round(values.astype(np.float64) * _MICROSECONDS[unit])
    if not bool((np.abs(scaled) < 2.0**62).all()):  # NaN included
        raise Damaged("t has values that are no times")
    return scaled.astype(np.int64)
