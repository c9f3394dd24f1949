"""Trials as processes of this machine: one each, so that no crash, leak or seed of one reaches another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from engram.benchmarks.records.layout import LOG
from engram.benchmarks.worker.stopping import DRIVEN

_TAIL = 4096  # bytes of a log that hold its last line


@dataclass
class LocalPool:
    """At most ``workers`` trials at once, each with its share of the processor's cores."""

    workers: int
    killed: set[Path] = field(default_factory=set)
    """Trials whose workers `kill` ended."""
    _running: dict[Path, subprocess.Popen[bytes]] = field(default_factory=dict)
    _logged: dict[Path, int] = field(default_factory=dict)

    @property
    def free(self) -> int:
        return self.workers - len(self._running)

    @property
    def running(self) -> tuple[Path, ...]:
        return tuple(self._running)

    def start(self, folder: Path) -> None:
        """Start the worker of one trial.

        Its standard input is a pipe that nobody writes to: when this process dies, the worker reads end of file and
        stops by itself. Its own session keeps a terminal's ^C from reaching it before we decide what to do. What it
        says goes to the trial's log, from the first import on.
        """
        with _log(folder) as log:
            self._logged[folder] = os.fstat(log.fileno()).st_size
            self._running[folder] = subprocess.Popen(
                [sys.executable, "-P", "-m", "engram.benchmarks", "exec", str(folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment(len(self._running)),
                start_new_session=True,
            )

    def last_words(self, folder: Path) -> str:
        """The last line that the worker of a trial wrote to its log, and where more is."""
        path, begun = folder / LOG, self._logged.get(folder, 0)
        try:
            with path.open("rb") as log:
                log.seek(max(begun, path.stat().st_size - _TAIL))
                lines = log.read(_TAIL).decode(errors="replace").split("\n")
        except OSError:
            lines = []
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{said} (see {path})" if said else "it said nothing"

    def finished(self) -> dict[Path, int]:
        """Exit codes of the workers that ended since the last call; negative: killed by that signal."""
        ended = {folder: code for folder, process in self._running.items() if (code := process.poll()) is not None}
        for folder in ended:
            stdin = self._running.pop(folder).stdin
            if stdin is not None:
                stdin.close()
        return ended

    def stop(self) -> None:
        """Ask all workers to save a checkpoint and leave."""
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        for folder, process in self._running.items():
            if process.poll() is None:
                process.kill()
                self.killed.add(folder)

    def _environment(self, slot: int) -> Mapping[str, str]:
        env = dict(os.environ)
        env[DRIVEN] = "1"
        env.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // self.workers)))
        env.setdefault("PYTHONHASHSEED", "0")
        # glibc hands every large tensor's pages back and faults them in again: a fifth of a training step's time
        env.setdefault("MALLOC_MMAP_MAX_", "0")
        env.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**34))
        gpus = [gpu for gpu in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        if len(gpus) > 1:
            env["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        return env


def _log(folder: Path) -> BinaryIO:
    """A trial's log; nowhere where the disk has no room for one: the worker will find that out and say it."""
    try:
        return (folder / LOG).open("ab")
    except OSError:
        return Path(os.devnull).open("ab")


def available_cores() -> int:
    """Cores that this process may use, which containers and schedulers may have cut down."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
