"""What may be removed from a folder of trials: never a result, and nothing of a trial that runs."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engram.backbone.atomic import half_written
from engram.backbone.caching import user_cache
from engram.benchmarks.records.layout import MODELS, OURS, STATES, Busy, lock, sweep_dir, trials_dir
from engram.benchmarks.records.search import SEARCH, read_events
from engram.benchmarks.records.stored import Damaged
from engram.benchmarks.records.trials import Record, alive, read_sweep, sweep_names, trial_names

RESTING_SECONDS = 3600.0
"""How long nothing may have been written to what belongs to nobody: a trial may be about to start."""
CACHES = ("kernels", "features", "trials")
CACHE_SECONDS = 30 * 86400.0
"""How long is kept what can be had again, and nobody reads."""
FETCHING = ".fetching-"
"""How folders begin into which a registered model is fetched."""
KILLED = "left by a process that was killed"
_TEMPORARY = re.compile(r"\.writable-\d+|\.node-.+-\d+-[0-9a-f]+|\.reserve")
_RUN = re.compile(r"[0-9a-f]{32}")
"""The id of a run of MLflow's."""
_SCRATCH = "tmp*"
"""What `tempfile` calls folders, as one in which a kernel is compiled."""


@dataclass(frozen=True)
class Waste:
    """A file or folder that nobody needs. ``trial``: the folder of the trial that it is of, if any."""

    path: Path
    why: str
    trial: Path | None = None

    @property
    def size(self) -> int:
        """Bytes on the disk; none of what went since it was found."""
        try:
            if self.path.is_dir() and not self.path.is_symlink():
                return sum(Waste(each, "").size for each in self.path.iterdir())
            return self.path.lstat().st_size
        except FileNotFoundError:
            return 0

    def remove(self) -> bool:
        """Remove it; False where its trial runs by now, which keeps all that it has.

        Raises:
            OSError: it cannot be removed.
        """
        if self.trial is None:
            _remove(self.path)
            return True
        try:
            with lock(self.trial / "lock", patience=0.0, what=self.trial.name):
                _remove(self.path)
        except Busy:
            return False
        return True


def find_waste(out: Path) -> Iterator[Waste]:
    """All that may be removed below ``out``, and what is old in the user's cache.

    Raises:
        Damaged: a sweep's plan, or a search's record, so that nobody knows which trials are its.
    """
    for name in sweep_names(out):
        _see_whole(sweep_dir(out, name) / SEARCH)
    records = [record for name in sweep_names(out) for record in read_sweep(out, name).records]
    wanted = _wanted(out, records)
    # what one is made from that has not begun, nothing here says yet
    wanted |= {*trial_names(out)} if any(not record.about for record in records) else set()
    for name in trial_names(out):
        folder = trials_dir(out) / name
        if not alive(folder):
            yield from _of_trial(folder, wanted)
    yield from (Waste(path, KILLED) for path in _temporaries(out, OURS))
    for folder in (*_folders(out / "sweeps"), *_folders(out / "mlartifacts")):
        yield from (Waste(path, KILLED) for path in _temporaries(folder))
    yield from _of_models(out / MODELS)
    yield from _of_caches()


def _see_whole(record: Path) -> None:
    """Refuse a search's record behind whose damage trials may be named that are half done."""
    _, _, why = read_events(record)
    if why:
        raise Damaged(record, why)


def _wanted(out: Path, of_sweeps: Sequence[Record]) -> set[str]:
    """The trials of all sweeps, and those that these and finished ones are made from."""
    records = [*of_sweeps, *(Record(trials_dir(out) / name) for name in trial_names(out))]
    inputs = {trial for record in records for trial in map(str, record.about.get("inputs", {}).values())}
    return inputs | {record.trial for record in of_sweeps}


def _of_trial(folder: Path, wanted: set[str]) -> Iterator[Waste]:
    record = Record(folder)
    rests = min(map(_age, (folder, *folder.iterdir()))) > RESTING_SECONDS
    has_result = (folder / "result.json").exists()
    if folder.name not in wanted and not has_result and rests:
        yield Waste(folder, f"{record.status}, and of no sweep", folder)
        return
    states = folder / STATES
    if record.status in ("done", "pruned") and states.is_dir():
        yield Waste(states, f"checkpoints of a trial that is {record.status}", folder)
    elif states.is_dir():
        whole = {path.stem for path in states.glob("state-*.json")}
        for path in states.glob("*"):
            if path.stem not in whole:
                yield Waste(path, "a checkpoint that was never finished", folder)
    for inner in _folders(folder):
        if inner != states:
            yield from (Waste(path, KILLED, folder) for path in _temporaries(inner))


def _folders(folder: Path) -> Iterator[Path]:
    """A folder and all below it."""
    yield from (Path(here) for here, _, _ in os.walk(folder))


def _temporaries(folder: Path, names: Collection[str] | None = None) -> Iterator[Path]:
    """What processes that were killed have left in a folder, of whose files ``names`` alone are ours; None: all."""
    if folder.is_dir():
        others = (path for path in folder.glob(".*") if _TEMPORARY.fullmatch(path.name) and path.is_file())
        found = [*(path for path, _ in half_written(folder, names)), *others]
        yield from (path for path in sorted(found) if _age(path) > RESTING_SECONDS)


def _of_models(home: Path) -> Iterator[Waste]:
    """What was fetched; other folders there are somebody's own, whose ``--out`` may be where they work."""
    for path in sorted(each for each in home.glob("*/*") if _RUN.fullmatch(each.parent.name) and each.is_dir()):
        if path.name.startswith(FETCHING):
            if min(map(_age, (path, *path.rglob("*")))) > RESTING_SECONDS:
                yield Waste(path, KILLED)
        elif min((_unread(each) for each in path.rglob("*") if each.is_file()), default=_age(path)) > CACHE_SECONDS:
            yield Waste(path, "a registered model that nobody read for 30 days")


def _of_caches() -> Iterator[Waste]:
    for kind in CACHES:
        folder = user_cache(kind)
        scratch = [path for path in folder.glob(_SCRATCH) if path.is_dir() and _age(path) > RESTING_SECONDS]
        killed = [*_temporaries(folder), *scratch]
        yield from (Waste(path, KILLED) for path in killed)
        for path in sorted({*folder.glob("*")} - {*killed}):
            if path.is_file() and _unread(path) > CACHE_SECONDS:
                yield Waste(path, "a cache that nobody read for 30 days")


def _age(path: Path) -> float:
    """Seconds since it was written to."""
    return time.time() - path.stat().st_mtime


def _unread(path: Path) -> float:
    """Seconds since it was written to or read, which most file systems note once a day."""
    return min(_age(path), time.time() - path.stat().st_atime)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
