"""What files are: a sha256 over their bytes, which are not read again as long as nothing about the files changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engram.backbone.errors import must
from engram.benchmarks.records.inside import inside
from engram.benchmarks.records.stored import held, read_json, write_json

MEMORY = "contents.json"
_SETTLED_NS = 2 * 10**9
"""Two writings closer to each other than a file system's clock ticks leave the same times: how old a file must be."""
_MOST = 1000  # sets of files that are remembered
Places = Mapping[str, str]
"""The names that data have by where they lie (``folder:PATH``) -> the sha256 of their files."""
_NONE: Places = MappingProxyType({})


class Contents:
    """Digests of sets of files; those read before come from a memory, which may be missing, damaged or read-only."""

    def __init__(self, memory: Path | None = None) -> None:
        self.memory = memory
        self._known: dict[str, Any] = {} if memory is None else held(memory)
        self._fresh: dict[str, str] = {}

    def of(self, files: Mapping[str, Path], places: Places = _NONE) -> str:
        """The sha256 of the files' bytes and of the words they stand under; where they lie does not count.

        Nor does it count where data lie whose ``places`` JSON files name.

        Raises:
            UserError: one of them is not a file that can be read.
        """
        files = dict(sorted(files.items()))
        before = _stamp(files, places)
        found = self._known.get(before)
        if isinstance(found, str):
            return found
        digest, settled = hashlib.sha256(), True
        for word, path in files.items():
            settled &= _age(path) > _SETTLED_NS
            held = _sha256_without(path, places) if places and path.suffix == ".json" else _sha256(path)
            digest.update(json.dumps([word, held]).encode())
        found = digest.hexdigest()
        if settled and _stamp(files, places) == before:
            self._known[before] = self._fresh[before] = found
        return found

    def save(self) -> None:
        """Remember what was read; of two processes that do so at once one may be forgotten, which costs time alone."""
        if self.memory is None or not self._fresh:
            return
        kept = list({**held(self.memory), **self._fresh}.items())[-_MOST:]
        with contextlib.suppress(OSError):
            write_json(self.memory, dict(kept))
        self._fresh = {}


def finished(folder: Path, contents: Contents) -> str:
    """The configuration and the artifacts of a finished trial, in one sha256: what another trial may be made from.

    Its data count by their bytes, wherever they lay.

    Raises:
        UserError: a file of it cannot be read.
    """
    return finished_with(folder, read_json(folder / "config.json"), read_json(folder / "result.json"), contents)


def still_holds(folder: Path, expected: str, contents: Contents) -> bool:
    """Whether a finished trial holds what ``expected`` says, which until engram 0.3 looked at where its data lay, too.

    Raises:
        UserError: as `finished`.
    """
    about, result = read_json(folder / "config.json"), read_json(folder / "result.json")
    return expected == finished_with(folder, about, result, contents) or (
        expected == _held(folder, about, result, contents, _NONE)
    )


def finished_with(folder: Path, about: Mapping[str, Any], result: Mapping[str, Any], contents: Contents) -> str:
    """As `finished`, for a result.json that is yet to be written."""
    data: Mapping[str, str | None] = about.get("data") or {}
    places = {where: sha256 for where, sha256 in data.items() if sha256 is not None}
    return _held(
        folder, {**about, "data": sorted(map(str, data.values()))} if places else about, result, contents, places
    )


def _held(folder: Path, about: Mapping[str, Any], result: Mapping[str, Any], contents: Contents, places: Places) -> str:
    said = {key: about.get(key) for key in ("experiment", "version", "config", "inputs", "data", "contents")}
    said |= {key: result.get(key) for key in ("trial", "artifacts")}  # metrics hold times, which no seed repeats
    artifacts = result.get("artifacts")
    names = [str(name) for name in artifacts.values()] if isinstance(artifacts, dict) else []
    held = contents.of({place: file for name in names for place, file in _artifact(folder, name)}, places)
    return hashlib.sha256(_without(json.dumps([said, held], sort_keys=True).encode(), places)).hexdigest()


def _without(text: bytes, places: Places) -> bytes:
    """JSON in which data are called by what they hold."""
    for where, sha256 in places.items():
        for name in {json.dumps(where), json.dumps(where, ensure_ascii=False)}:
            text = text.replace(name.encode(), json.dumps(sha256).encode())
    return text


def _artifact(folder: Path, name: str) -> Iterator[tuple[str, Path]]:
    """The files of one artifact of the trial in ``folder``, none where it is gone.

    Raises:
        UserError: its name, or a link in it, leads out of the folder.
    """
    path = folder / name
    try:
        for file in sorted(path.rglob("*")) if inside(folder, name).is_dir() else [path]:
            if file.is_file():
                inside(folder, file.relative_to(folder).as_posix())
                yield f"{name}/{file.relative_to(path).as_posix()}", file
    except FileNotFoundError:
        return
    except OSError as error:
        raise must("an artifact", f"files in {folder}", f"{name} ({error.strerror})", "Put them there.") from None


def _stamp(files: Mapping[str, Path], places: Places) -> str:
    """Changes when a file is replaced, written to or renamed, whatever times somebody set it back to."""
    digest = hashlib.sha256(json.dumps(sorted(places.items())).encode() if places else b"")
    for word, path in files.items():
        about = _stat(path)
        seen = (about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)
        digest.update(json.dumps([word, os.fsdecode(path), *seen]).encode())
    return digest.hexdigest()


def _stat(path: Path) -> os.stat_result:
    try:
        about = path.stat()
    except OSError as error:
        raise must("a file", "readable", f"{path} ({error.strerror})", "Restore it.") from None
    if not stat.S_ISREG(about.st_mode):  # a pipe would never end
        raise must("a file", "a regular one", path, "Replace it by what it stands for.")
    return about


def _age(path: Path) -> int:
    about = _stat(path)
    return time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns)


def _sha256_without(path: Path, places: Places) -> str:
    try:
        return hashlib.sha256(_without(path.read_bytes(), places)).hexdigest()
    except OSError as error:
        raise must("a file", "readable", f"{path} ({error.strerror})", "Restore it.") from None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise must("a file", "readable", f"{path} ({error.strerror})", "Restore it.") from None
