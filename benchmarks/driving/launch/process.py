"""The process of a trial, wherever it runs: its command, what it finds in its environment, the last that it said."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from engram.benchmarks.driving.launch.contract import Ended
from engram.benchmarks.records.layout import LOG
from engram.benchmarks.records.trials import Record

_TAIL = 4096  # bytes of a log that hold its last line


def command(folder: Path | str, python: str = sys.executable) -> list[str]:
    """What runs the trial in ``folder``."""
    return [python, "-P", "-m", "engram.benchmarks", "exec", str(folder)]


def defaults(cores: int) -> Mapping[str, str]:
    """What a worker with so many cores gets of its environment where that says nothing else."""
    return {
        "OMP_NUM_THREADS": str(cores),
        "PYTHONHASHSEED": "0",
        # glibc hands every large tensor's pages back and faults them in again: a fifth of a training step's time
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**34),
    }


def last_words(folder: Path, begun: int = 0) -> str:
    """The last line that was written to a trial's log since it had ``begun`` bytes; "" where there is none."""
    path = folder / LOG
    try:
        with path.open("rb") as log:
            log.seek(max(begun, path.stat().st_size - _TAIL))
            lines = log.read(_TAIL).decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def logged(folder: Path) -> int:
    """How many bytes a trial's log has."""
    try:
        return (folder / LOG).stat().st_size
    except OSError:
        return 0


def ended_by_kernel() -> int:
    """How many processes of this machine its kernel has ended for want of memory; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def told_by(folder: Path) -> Ended:
    """How the worker of a trial ended, where nobody saw it, as far as its folder tells."""
    status = Record(folder).status
    return Ended(0 if status == "done" else 1 if status == "failed" else None, "its process is gone")
