"""``.mat``: the recordings of ST-MNIST, digits that are touched; no torch here.

Source: See et al. 2020 (arXiv 2005.04319); MathWorks, "MAT-File Format", level 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from engram.backbone.data.files import MOST_BYTES
from engram.backbone.data.recordings.events import Damaged, Events

_SIDE = 10
_HEAD = 128
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}


def decode_stmnist(blob: bytes) -> Events:
    """The matrix ``spiketrain`` ``[101, S]``: 1 and -1 where one of 10 x 10 taxels sends, then times in seconds."""
    if len(blob) < _HEAD or blob[124:128] != b"\x00\x01IM":
        raise Damaged("it is no MAT file of level 5 with the small bytes first")
    for kind, content in _elements(memoryview(blob)[_HEAD:]):
        matrix = _matrix(_decompressed(content) if kind == _COMPRESSED else content) if kind >= _MATRIX else None
        if matrix is not None:
            return _events(matrix)
    raise Damaged("it has no matrix spiketrain")


def _events(matrix: np.ndarray) -> Events:
    times = matrix[-1]
    if not bool((np.abs(times) < 1e9).all()):  # NaN included
        raise Damaged("it has values that are no times")
    step, taxel = np.nonzero(matrix[:-1].T)
    t = np.round(times * 1e6).astype(np.int64)[step]
    return Events.of(t, taxel % _SIDE, taxel // _SIDE, matrix[taxel, step] > 0, (_SIDE, _SIDE))


def _elements(held: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and content of one element after another; small ones stand within their tag."""
    start = 0
    while start + 8 <= len(held):
        kind, size = struct.unpack_from("<II", held, start)
        small = kind >> 16
        begin = start + 4 if small else start + 8
        kind, size = (kind & 0xFFFF, small) if small else (kind, size)
        if size > len(held) - begin or (small and small > 4):
            raise Damaged(f"an element says {size:,} bytes, and {len(held) - begin:,} are there")
        yield kind, held[begin : begin + size]
        start = start + 8 if small else begin + (size if kind == _COMPRESSED else -(-size // 8) * 8)


def _decompressed(content: memoryview) -> memoryview:
    """The one matrix that is compressed, without its tag."""
    unpacker = zlib.decompressobj()
    try:
        held = unpacker.decompress(content, MOST_BYTES)
    except zlib.error as error:
        raise Damaged(f"it cannot be decompressed: {error}") from error
    if unpacker.unconsumed_tail:
        raise Damaged(f"it unfolds to more than {MOST_BYTES:,} bytes")
    return next((inner for kind, inner in _elements(memoryview(held)) if kind == _MATRIX), memoryview(b""))


def _matrix(content: memoryview) -> np.ndarray | None:
    """A matrix ``[101, S]`` of the name that is looked for; None for anything else."""
    parts = list(_elements(content))
    if len(parts) < 4 or bytes(parts[2][1]) != b"spiketrain":
        return None
    shape = np.frombuffer(parts[1][1][: len(parts[1][1]) // 4 * 4], "<i4").tolist()
    kind, values = parts[3]
    rows = _SIDE**2 + 1
    if len(shape) != 2 or shape[0] != rows or shape[1] < 0 or kind not in _TYPES:
        raise Damaged(f"spiketrain is {' x '.join(map(str, shape))}, and 101 rows of numbers are read")
    held = np.dtype(_TYPES[kind])
    if len(values) != rows * shape[1] * held.itemsize:
        raise Damaged(f"spiketrain is {rows} x {shape[1]}, and {len(values):,} bytes are there")
    return np.frombuffer(values, held).reshape(shape[1], rows).T.astype(np.float64)
