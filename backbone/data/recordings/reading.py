"""Recordings by the ends of their files' names; no torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from engram.backbone.data import files
from engram.backbone.data.class_folders import Kind, Parts, find_parts, folder_of
from engram.backbone.data.event_options import EventsOptions
from engram.backbone.data.names import Reading, shown
from engram.backbone.data.recordings.aedat2 import decode_aedat2
from engram.backbone.data.recordings.aedat4 import decode_aedat4
from engram.backbone.data.recordings.arrays import decode_hdf5, decode_npy, decode_npz
from engram.backbone.data.recordings.dat import decode_dat
from engram.backbone.data.recordings.events import Damaged, Events
from engram.backbone.data.recordings.evt import decode_evt
from engram.backbone.data.recordings.nmnist import decode_nmnist
from engram.backbone.data.recordings.stmnist import decode_stmnist
from engram.backbone.errors import must

Decoder = Callable[[bytes, EventsOptions], Events]


def _plain(decode: Callable[[bytes], Events]) -> Decoder:
    """A decoder that no option concerns."""
    return lambda blob, _options: decode(blob)


DECODERS: Mapping[str, Decoder] = {
    ".bin": _plain(decode_nmnist),
    ".aedat": lambda blob, options: decode_aedat2(blob, options.camera),
    ".aedat4": _plain(decode_aedat4),
    ".raw": _plain(decode_evt),
    ".dat": _plain(decode_dat),
    ".npy": lambda blob, options: decode_npy(blob, options.unit),
    ".npz": lambda blob, options: decode_npz(blob, options.unit),
    **dict.fromkeys((".h5", ".hdf5"), lambda blob, options: decode_hdf5(blob, options.unit)),
    ".mat": _plain(decode_stmnist),
}
"""End of a file's name -> the bytes of the file as events."""
RECORDINGS = Kind("events", "recording", frozenset(DECODERS))


def find_recordings(path: str | None, root: Path, which: Reading = "usual") -> Parts:
    """What ``events:PATH`` holds; a PATH that is nowhere may lie below the data root (`find_parts`)."""
    return find_parts(str(place(path, root)), which, RECORDINGS)


def place(path: str | None, root: Path) -> Path:
    """The folder that the PATH of ``events:PATH`` stands for."""
    where = folder_of(path)
    return root / where if not where.exists() and (root / where).is_dir() else where


def decode(blob: bytes, path: Path, options: EventsOptions) -> Events:
    """The events in the bytes of a file.

    Raises:
        UserError: it is damaged, or another kind of file than its name says.
    """
    try:
        return DECODERS[path.suffix.lower()](blob, options)
    except (Damaged, MemoryError) as error:
        got = f"{shown(path)} ({error or 'it asks for more memory than there is'})"
        raise must("a recording", f"an undamaged {path.suffix} file", got, "Restore it or take it out.") from error


def read(path: Path, options: EventsOptions) -> Events:
    """The events of a file.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    return decode(files.read(path, "a recording"), path, options)
