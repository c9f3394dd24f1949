"""What finished trials say, in the user's cache for as long as nothing about their files changes.

To read a trial is to hash and check four files, a second for some thousands of trials. Where nothing was written since,
to look at the files is enough. ``engram doctor`` reads all of them anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from functools import cache, cached_property
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
Texts = tuple[str, str, str, str]
Entry = tuple[str, Texts]
"""The stamp of a trial's files, and what it said (`Said.texts`)."""
_SETTLED_NS = 2 * 10**9
"""As in `engram.benchmarks.records.contents`: two writings within a tick of the clock leave the same times."""


class Said:
    """What a finished and undamaged trial says: its config.json, and of its result.json metrics and time.

    It is held as texts, for most trials are only asked whether they are done.
    """

    def __init__(self, texts: Texts) -> None:
        self.texts = texts

    @classmethod
    def of(cls, about: Mapping[str, Any], metrics: Mapping[str, Any], seconds: float | None) -> Said:
        said = json.dumps(about.get("experiment")), json.dumps(about), json.dumps(metrics), json.dumps(seconds)
        return cls(said)

    @cached_property
    def experiment(self) -> str | None:
        return json.loads(self.texts[0])

    @cached_property
    def about(self) -> dict[str, Any]:
        return json.loads(self.texts[1])

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return json.loads(self.texts[2])

    @property
    def seconds(self) -> float | None:
        return json.loads(self.texts[3])


class Memory:
    """Of the trials below one ``out``; read when it is first asked. `memory_of` makes it.

    It may live as long as its process, and be asked by several of its threads: each answer looks at the files.
    """

    def __init__(self, out: Path) -> None:
        self._place = f"{sha256(os.fsencode(out.resolve())).hexdigest()[:32]}.lines"
        self._held: dict[str, Entry] | None = None
        self._fresh: dict[str, Entry] = {}

    def of(self, folder: Path) -> tuple[str, Said | None]:
        """(the stamp of the trial's files now, what it said when they were those that are there now)."""
        if self._held is None:
            self._held = _read(user_cache(_KIND) / self._place)
        stamp, found = _stamp(folder)[0], self._held.get(folder.name)
        return stamp, Said(found[1]) if found is not None and stamp and found[0] == stamp else None

    def learn(self, folder: Path, said: Said, before: str) -> None:
        """Remember what was read since the files had the stamp ``before``; not what was written meanwhile or a moment
        before.
        """
        name, (stamp, newest) = folder.name, _stamp(folder)
        if not stamp or stamp != before or not said.about:
            return
        plain = name.isascii() and name.isprintable()  # a stranger's plan may have others
        if plain and time.time_ns() - newest > _SETTLED_NS:
            self._fresh[name] = stamp, said.texts

    def save(self) -> None:
        """Keep what was learned; of two processes that do so at once one may be forgotten, which costs time alone."""
        if len(self._fresh) < _WORTH:
            return
        self._held, self._fresh = {**(self._held or {}), **self._fresh}, {}
        folder = kept_in(_KIND)
        if folder is None:
            return
        lines = ["\t".join((name, stamp, *texts)) for name, (stamp, texts) in self._held.items()]
        text = "\n".join(lines).encode()
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


def _read(path: Path) -> dict[str, Entry]:
    """A line for each trial: its name, the stamp of its files and what it said, with tabs between, which JSON has none
    of.
    """
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if not text or sha256(text).hexdigest().encode() != digest:
        return {}
    lines = (line.split("\t") for line in text.decode().split("\n"))
    return {parts[0]: (parts[1], (parts[2], parts[3], parts[4], parts[5])) for parts in lines if len(parts) == 6}


def _stamp(folder: Path) -> tuple[str, int]:
    """(what changes when one of the files is replaced, written to or renamed, when the last one was); "" where there is
    no result.
    """
    found, newest, place = "", 0, str(folder)
    for name in FILES:
        try:
            about = os.stat(f"{place}/{name}")  # noqa: PTH116 - a path object a file costs more than the call
        except OSError:
            if name in FILES[:2]:
                return "", 0
            found += ";"
            continue
        found += f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns} {about.st_ino};"
        newest = max(newest, about.st_mtime_ns, about.st_ctime_ns)
    return found, newest
