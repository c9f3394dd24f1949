"""A process that reads HDF5 files: run as a script, with bytes in and plain arrays out, and nothing it could open.

HDF5's library hangs on some damaged files and has crashed on others, which no handler in Python can stop. So it runs
here, under limits of memory and processor time, and once everything is imported it may open no file any more.

Request: two numbers of 8 bytes (length of the limits, as JSON, and of the file), then both. Reply: the length of a JSON
header in 8 bytes, the header, and the arrays' values one after another. Numbers are little-endian.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import h5py
import numpy as np
from h5py import h5l, h5o  # type: ignore[attr-defined]  # compiled, and not in its stubs

FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
CLASSES = {h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM}
SMALL = 1 << 16
"""Bytes that may be read from where next to nothing is stored: fill values, and arrays that compress very well."""
ATTRIBUTES = 64


class Refused(Exception):
    """The file asks for what no network's file needs; the text says what, as the end of "it has ..."."""


class Screen:
    """One walk through a file: everything is checked before anything of it is read."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.limits = limits
        self.seen: set[tuple[int, int]] = set()
        self.bytes = 0

    def group(self, group: Any, path: str = "/", depth: int = 0) -> None:
        if depth > self.limits["depth"]:
            raise Refused(f"groups more than {self.limits['depth']} deep")
        self.once(group, path)
        self.attributes(group, path)
        for name in names(group):
            inner = f"{path.rstrip('/')}/{name}"
            if group.id.links.get_info(name.encode(errors="surrogateescape")).type != h5l.TYPE_HARD:
                raise Refused(f"a link to another place or file at {inner}")
            each = group[name]
            if isinstance(each, h5py.Group):
                self.group(each, inner, depth + 1)
            elif isinstance(each, h5py.Dataset):
                self.once(each, inner)
                self.attributes(each, inner)
                self.dataset(each, inner)
            else:
                raise Refused(f"a type of its own at {inner}")

    def once(self, each: Any, path: str) -> None:
        """Objects with two names may hold themselves, or unfold to any size."""
        info = h5o.get_info(each.id)
        if (info.fileno, info.addr) in self.seen:
            raise Refused(f"one object by two names, one of them {path}")
        self.seen.add((info.fileno, info.addr))
        if len(self.seen) > self.limits["objects"]:
            raise Refused(f"more than {self.limits['objects']} objects")

    def attributes(self, each: Any, path: str) -> None:
        count = h5py.h5a.get_num_attrs(each.id)
        if count > ATTRIBUTES:
            raise Refused(f"{count} attributes at {path}")
        for place in range(count):
            attribute = h5py.h5a.open(each.id, index=place)
            kind(attribute.get_type(), f"an attribute of {path}")
            if math.prod(attribute.shape) * attribute.get_type().get_size() > SMALL:
                raise Refused(f"an attribute of more than {SMALL} bytes at {path}")

    def dataset(self, each: Any, path: str) -> None:
        made = each.id.get_create_plist()
        if made.get_external_count():
            raise Refused(f"values that stand in another file at {path}")
        if made.get_layout() == h5py.h5d.VIRTUAL:
            raise Refused(f"values put together from other data sets at {path}")
        for place in range(made.get_nfilters()):
            if made.get_filter(place)[0] not in FILTERS:
                raise Refused(f"a filter other than gzip, shuffle and fletcher32 at {path}")
        if each.id.get_space().get_simple_extent_type() not in (h5py.h5s.SCALAR, h5py.h5s.SIMPLE):
            raise Refused(f"no values at {path}")
        kind(each.id.get_type(), path)
        item = each.id.get_type().get_size()
        asked = math.prod(each.shape) * item
        chunk = math.prod(made.get_chunk()) * item if made.get_layout() == h5py.h5d.CHUNKED else 0
        stored = each.id.get_storage_size()
        if max(asked, chunk) > max(self.limits["ratio"] * stored, SMALL):
            raise Refused(f"{max(asked, chunk)} bytes in {stored} stored ones at {path}")
        self.bytes += asked
        if max(self.bytes, chunk) > self.limits["values"]:
            raise Refused(f"more than {self.limits['values']} bytes of values, at {path}")


def names(group: Any) -> Iterator[str]:
    for name in group:
        if name in ("", ".", "..") or "/" in name or not name.isprintable():
            raise Refused(f"a name like {name[:40]!r}")
        yield name


def kind(found: Any, path: str) -> None:
    """Numbers of at most 8 bytes, booleans and texts are all that a file may hold."""
    of = found.get_class()
    if of not in CLASSES or (of != h5py.h5t.STRING and found.get_size() > 8):
        raise Refused(f"values that are no numbers or texts at {path}")


class Answer:
    """A screened file as a JSON header and the values of its arrays."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.left = limits["values"]
        self.values: list[np.ndarray] = []

    def group(self, group: Any) -> dict[str, Any]:
        return {"group": {name: self.node(group[name]) for name in names(group)}}

    def node(self, each: Any) -> dict[str, Any]:
        if isinstance(each, h5py.Group):
            return self.group(each)
        found = np.asarray(each[()])
        if each.dtype.kind in "OSU":
            texts = [text(one) for one in found.reshape(-1).tolist()]
            self.left -= sum(map(len, texts)) + 8 * len(texts)
            self.bounded(each)
            return {"texts": texts, "shape": list(found.shape)}
        if found.dtype.kind not in "biuf":
            raise Refused(f"values that are no numbers or texts at {each.name}")
        found = np.ascontiguousarray(found, found.dtype.newbyteorder("<")).reshape(found.shape)
        self.left -= found.nbytes
        self.bounded(each)
        self.values.append(found)
        return {"dtype": found.dtype.str, "shape": list(found.shape)}

    def bounded(self, each: Any) -> None:
        if self.left < 0:
            raise Refused(f"more values than may be read, at {each.name}")


def text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def answer(image: bytes, limits: Mapping[str, int]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The reply to one file: what it holds, or in one sentence why not."""
    try:
        with h5py.File(h5py.h5f.open_file_image(image)) as file:
            Screen(limits).group(file)
            made = Answer(limits)
            return {"file": made.group(file)}, made.values
    except Refused as error:
        return {"refused": str(error)}, []
    except MemoryError:
        return {"refused": "more in it than there is memory for"}, []
    except Exception as error:  # whatever h5py makes of damage
        return {"damaged": (str(error).splitlines() or [type(error).__name__])[0][:200]}, []


def confine(memory: int) -> None:
    """No memory beyond this, no file opened, none written, no core dump."""
    for encoding in ("ascii", "utf-8", "latin-1"):  # which h5py asks for by name, and Python loads from files
        codecs.lookup(encoding)
    try:
        import resource
    except ImportError:  # Windows: there is the limit of time alone, which the other side keeps
        return
    for what, value in [("AS", memory), ("FSIZE", 0), ("CORE", 0), ("NOFILE", 0)]:
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of address space
            number = getattr(resource, f"RLIMIT_{what}")
            resource.setrlimit(number, (value, value))


def patient(seconds: int) -> None:
    """So much processor time from now on; then the process ends."""
    with contextlib.suppress(ImportError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(used.ru_utime + used.ru_stime) + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def main(given: BinaryIO, taken: BinaryIO) -> None:
    """Answer files until there are no more."""
    confined = False
    while len(head := given.read(16)) == 16:
        limits = json.loads(given.read(int.from_bytes(head[:8], "little")))
        image = given.read(int.from_bytes(head[8:], "little"))
        if not confined:
            confine(limits["memory"])
            confined = True
        patient(limits["seconds"])
        header, values = answer(image, limits)
        sent = json.dumps(header).encode()
        taken.write(len(sent).to_bytes(8, "little"))
        taken.write(sent)
        for each in values:
            taken.write(each.reshape(-1).view(np.uint8).data)
        taken.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
