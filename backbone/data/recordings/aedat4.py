"""``.aedat4``: AEDAT 4.0, the files of DV: packets, compressed or not, each a FlatBuffer; no torch here.

Source: docs.inivation.com, "AEDAT 4.0", and flatbuffers.dev, "FlatBuffers Internals".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import numpy as np

from engram.backbone.data.recordings.events import MOST_EVENTS, Damaged, Events, within

_MAGIC = b"#!AER-DAT4.0\r\n"
_CODECS = (None, "lz4", "lz4", "zstd", "zstd")
_EVENT = np.dtype({"names": ["t", "x", "y", "p"], "formats": ["<i8", "<i2", "<i2", "u1"], "itemsize": 16})
_COMPRESSION, _TABLE, _INFO = 0, 1, 2
_SIDES = re.compile(r'<attr key="(typeIdentifier|sizeX|sizeY)" type="\w+">(\w*)</attr>')


def decode_aedat4(blob: bytes) -> Events:
    """The packets of events of a file's one camera; frames, triggers and samples of motion are passed over."""
    if not blob.startswith(_MAGIC):
        raise Damaged(f"it begins with {blob[: len(_MAGIC)]!r} where {_MAGIC!r} is read")
    header = _Buffer(blob).prefixed(len(_MAGIC))
    root = header.root(b"IOHE")
    codec = header.number(root, _COMPRESSION, "<i", 0)
    if not 0 <= codec < len(_CODECS):
        raise Damaged(f"it says a compression of number {codec}, which is none")
    start, stop = len(_MAGIC) + len(header.held), header.number(root, _TABLE, "<q", -1)
    if stop > len(blob):
        raise Damaged(f"it ends at byte {len(blob):,}, and has a table at byte {stop:,}")
    parts = list(_packets(blob, start, stop if stop > start else len(blob), _CODECS[codec]))
    if len({stream for stream, _ in parts}) > 1:
        raise Damaged("it has events of several cameras, so keep one")
    events = np.concatenate([part for _, part in parts]) if parts else np.empty(0, _EVENT)
    return Events.of(events["t"], events["x"], events["y"], events["p"], _sensor(header.text(root, _INFO)))


def _packets(blob: bytes, start: int, stop: int, codec: str | None) -> Iterator[tuple[int, np.ndarray]]:
    """The number of its stream and the events of every packet that has some."""
    whole, total = _Buffer(blob), 0
    while start < stop:
        stream, size = whole.unpack("<ii", start)
        if size < 0 or start + 8 + size > stop:
            raise Damaged(f"the packet at byte {start:,} says {size:,} bytes, and {stop - start - 8:,} are there")
        try:
            packet = _unpacked(blob[start + 8 : start + 8 + size], codec)
            events = None if packet is None else _events(packet)
        except (OSError, Damaged) as error:  # what pyarrow raises for bytes that it cannot decompress
            raise Damaged(f"the packet at byte {start:,}: {' '.join(str(error).split())}") from error
        if events is not None:
            total = within(total + len(events))
            yield stream, events
        start += 8 + size


def _unpacked(data: bytes, codec: str | None) -> _Buffer | None:
    """A packet of events without its compression; None for one of something else."""
    if codec is None:
        return _Buffer(data).prefixed(0) if data[8:12] == b"EVTS" else None
    import pyarrow as pa  # a moment that other formats need not wait for

    with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
        first = stream.read(12)
        if first[8:12] != b"EVTS":
            return None
        size = int.from_bytes(first[:4], "little")
        within(max(size - 64, 0) // _EVENT.itemsize)
        return _Buffer(first + stream.read(max(size - 8, 0))).prefixed(0)


def _events(packet: _Buffer) -> np.ndarray:
    root = packet.root(b"EVTS")
    place = packet.field(root, 0)
    if place is None:
        return np.empty(0, _EVENT)
    start = place + packet.unpack("<I", place)[0]
    count = packet.unpack("<I", start)[0]
    if count > MOST_EVENTS or start + 4 + count * _EVENT.itemsize > len(packet.held):
        raise Damaged(f"it says {count:,} events, which it has no room for")
    return np.frombuffer(packet.held, _EVENT, count, start + 4)


def _sensor(text: str) -> tuple[int, int] | None:
    """Width and height of the camera that sends events, as the description of the streams tells them."""
    sides: dict[str, int] = {}
    kind = ""
    for key, value in _SIDES.findall(text):
        if key == "typeIdentifier":
            kind = value
        elif kind == "EVTS" and value.isdecimal() and len(value) < 6:
            sides.setdefault(key, int(value))
    return (sides["sizeX"], sides["sizeY"]) if len(sides) == 2 and all(sides.values()) else None


class _Buffer:
    """Bytes that are read at checked places."""

    def __init__(self, held: bytes | memoryview) -> None:
        self.held = held

    def prefixed(self, start: int) -> _Buffer:
        """The buffer whose size stands at ``start``, with that size in front."""
        size = self.unpack("<I", start)[0] + 4
        if start + size > len(self.held):
            raise Damaged(f"it says {size:,} bytes, and {len(self.held) - start:,} are there")
        return _Buffer(memoryview(self.held)[start : start + size])

    def unpack(self, layout: str, place: int) -> tuple[int, ...]:
        if place < 0 or place + struct.calcsize(layout) > len(self.held):
            raise Damaged(f"it points to byte {place:,}, and {len(self.held):,} are there")
        return struct.unpack_from(layout, self.held, place)

    def root(self, identifier: bytes) -> int:
        """The place of the table that a buffer with its size in front holds."""
        if bytes(self.held[8:12]) != identifier:
            raise Damaged(f"it is a buffer of {bytes(self.held[8:12])!r} where {identifier!r} is to be")
        return 4 + self.unpack("<I", 4)[0]

    def field(self, table: int, index: int) -> int | None:
        """The place of a table's field; None where it has its default."""
        fields = table - self.unpack("<i", table)[0]
        size = self.unpack("<H", fields)[0]
        place = 4 + 2 * index
        offset = self.unpack("<H", fields + place)[0] if place + 2 <= size else 0
        return table + offset if offset else None

    def number(self, table: int, index: int, layout: str, default: int) -> int:
        place = self.field(table, index)
        return default if place is None else self.unpack(layout, place)[0]

    def text(self, table: int, index: int) -> str:
        place = self.field(table, index)
        if place is None:
            return ""
        start = place + self.unpack("<I", place)[0]
        size = self.unpack("<I", start)[0]
        return bytes(self.held[start + 4 : start + 4 + size]).decode(errors="replace")
