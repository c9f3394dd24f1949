"""What finished trials say, in the user's cache for as long as nothing about their files changes.

To read a trial is to hash and check four files, a second for some thousands of trials. Where nothing was written since,
to look at the files is enough. ``engram doctor`` reads all of them anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from engram.backbone.atomic import write_atomically
from engram.backbone.caching import kept_in, user_cache

FILES = ("config.json", "result.json", "provenance.json", "metrics.jsonl")
_KIND = "trials"
_WORTH = 200
"""Trials that were read anew: for fewer it is not worth a file."""
_MOST_FILES = 20
_SETTLED_NS = 2 * 10**9
"""As in `engram.benchmarks.records.contents`: two writings within a tick of the clock leave the same times."""
Stamp = list[list[int]]


@dataclass(frozen=True)
class Said:
    """What a finished and undamaged trial says: its config.json, and of its result.json metrics and time."""

    about: dict[str, Any]
    metrics: dict[str, Any]
    seconds: float | None


class Memory:
    """Of the trials below one ``out``; read when it is first asked. `memory_of` makes it.

    It may live as long as its process: each answer looks at the files.
    """

    def __init__(self, out: Path) -> None:
        self._place = f"{sha256(os.fsencode(out.resolve())).hexdigest()[:32]}.json"
        self._held: dict[str, Any] | None = None
        self._before: dict[str, Stamp | None] = {}
        self._fresh: dict[str, Any] = {}

    def of(self, folder: Path) -> Said | None:
        """What the trial in ``folder`` said when its files were those that are there now."""
        if self._held is None:
            self._held = _read(user_cache(_KIND) / self._place)
        stamp = self._before[folder.name] = _stamp(folder)
        found = self._held.get(folder.name)
        return Said(*found[1:]) if found is not None and stamp is not None and found[0] == stamp else None

    def learn(self, folder: Path, said: Said) -> None:
        """Remember what was read since `of` was asked; not what was written meanwhile or a moment before."""
        stamp = _stamp(folder)
        if stamp is None or stamp != self._before.get(folder.name) or not said.about:
            return
        newest = max(max(times) for _, *times, _ in filter(None, stamp))
        if time.time_ns() - newest > _SETTLED_NS:
            self._fresh[folder.name] = [stamp, said.about, said.metrics, said.seconds]

    def save(self) -> None:
        """Keep what was learned; of two processes that do so at once one may be forgotten, which costs time alone."""
        if len(self._fresh) < _WORTH:
            return
        self._held, self._fresh = {**(self._held or {}), **self._fresh}, {}
        folder = kept_in(_KIND)
        if folder is None:
            return
        text = json.dumps(self._held).encode()
        with contextlib.suppress(OSError):
            write_atomically(folder / self._place, sha256(text).hexdigest().encode() + b"\n" + text)
            for old in sorted(folder.iterdir(), key=lambda path: -path.stat().st_mtime)[_MOST_FILES:]:
                old.unlink(missing_ok=True)


def memory_of(out: Path) -> Memory:
    """The one memory of this process for the trials below ``out``."""
    return _memory_of(out.resolve())


@cache
def _memory_of(out: Path) -> Memory:
    return Memory(out)


def _read(path: Path) -> dict[str, Any]:
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
    except OSError:
        return {}
    return json.loads(text) if sha256(text).hexdigest().encode() == digest else {}


def _stamp(folder: Path) -> Stamp | None:
    """Changes when one of the files is replaced, written to or renamed; None where there is no result."""
    found: Stamp = []
    for name in FILES:
        try:
            about = os.stat(f"{folder}/{name}")  # noqa: PTH116 - a path object a file costs more than the call
        except OSError:
            if name in FILES[:2]:
                return None
            found.append([])
            continue
        found.append([about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino])
    return found
