"""Folders as one tar and back, for machines that share no file system. Standard library alone: it is sent to nodes."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

MOST_BYTES = 2 * 2**30
"""What a trial's folder may have to travel."""
LEFT = ("lock", "lease", "sink.json")
"""Files that speak of a folder where it lies: who works there, and what a tracking store was told from there."""


def pack(folders: Mapping[str, Path], instead: Mapping[str, bytes] | None = None) -> bytes:
    """A tar of the plain files below ``folders``, under their names; ``instead`` has what some of them hold there.

    Raises:
        OverflowError: they are larger than `MOST_BYTES`.
    """
    written = io.BytesIO()
    given = dict(instead or {})
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, folder in folders.items():
            for here, _, files in os.walk(folder):
                for path in (Path(here, each) for each in sorted(files)):
                    word = f"{name}/{path.relative_to(folder).as_posix()}"
                    if path.name in LEFT or word in given or not _is_own(path, folder):
                        continue
                    with contextlib.suppress(FileNotFoundError):  # half written: it has its name by now
                        if written.tell() + path.stat().st_size > MOST_BYTES:
                            raise OverflowError(f"{folder} is larger than {MOST_BYTES // 2**20} MiB")
                        _add(tar, word, path.read_bytes())
        for word, content in given.items():
            _add(tar, word, content)
    return written.getvalue()


def unpack(packed: bytes, home: Path) -> set[Path]:
    """Write the files of a tar below ``home``, each whole or not at all; their paths.

    What says that others are there comes after them: JSON files last, and ``result.json`` as the very last.

    Raises:
        ValueError: an entry is no plain file, or its name leads out of ``home``.
    """
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        members = tar.getmembers()
        for member in members:
            name = PurePosixPath(member.name)
            if not member.isreg() or name.is_absolute() or ".." in name.parts or "\0" in member.name:
                raise ValueError(f"{member.name} is no plain file of the folder")
        members.sort(key=lambda each: (each.name.endswith(".json"), each.name.endswith("/result.json")))
        written = set[Path]()
        for member in members:
            path, held = home / member.name, tar.extractfile(member)
            assert held is not None  # it is a plain file
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.parent.resolve().is_relative_to(home.resolve()):
                raise ValueError(f"{member.name} is no plain file of the folder")
            part = path.with_name(f".{path.name}.part")
            part.write_bytes(held.read())
            part.replace(path)
            written.add(path)
    return written


def put_back(packed: bytes, folder: Path) -> None:
    """Make ``folder`` what the tar of it says: files that it lacks are removed.

    Raises:
        ValueError: as `unpack`, or it holds another folder.
    """
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        if strange := [name for name in tar.getnames() if PurePosixPath(name).parts[:1] != (folder.name,)]:
            raise ValueError(f"{strange[0]} is no plain file of the folder")
    written = unpack(packed, folder.parent)
    for here, _, files in os.walk(folder):
        for path in (Path(here, each) for each in files):
            if path not in written and path.name not in LEFT:
                path.unlink(missing_ok=True)  # whoever tells a store writes there at the same time


def _is_own(path: Path, folder: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def _add(tar: tarfile.TarFile, word: str, content: bytes) -> None:
    entry = tarfile.TarInfo(word)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))
