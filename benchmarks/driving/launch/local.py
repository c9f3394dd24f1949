"""Trials as processes of this machine: one each, so that no crash, leak or seed of one reaches another."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from engram.benchmarks.driving.launch.contract import Ended, Resources
from engram.benchmarks.driving.launch.process import command, defaults, last_words
from engram.benchmarks.records.layout import LOG
from engram.benchmarks.worker.stopping import DRIVEN


class LocalLauncher:
    """At most ``workers`` trials at once, each with its share of the processor's cores."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._running: dict[Path, subprocess.Popen[bytes]] = {}
        self._logged: dict[Path, int] = {}  # how long its log was when a trial was started

    def free(self) -> int:
        return self.workers - len(self._running)

    def start(self, folder: Path, resources: Resources) -> None:
        """Start the worker of one trial.

        Its standard input is a pipe that nobody writes to: when this process dies, the worker reads end of file and
        stops by itself. Its own session keeps a terminal's ^C from reaching it before we decide what to do. What it
        says goes to the trial's log, from the first import on.
        """
        with _log(folder) as log:
            self._logged[folder] = os.fstat(log.fileno()).st_size
            self._running[folder] = subprocess.Popen(
                command(folder),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment(len(self._running), resources),
                start_new_session=True,
            )

    def finished(self) -> Mapping[Path, Ended]:
        codes = {folder: code for folder, process in self._running.items() if (code := process.poll()) is not None}
        for folder in codes:
            stdin = self._running.pop(folder).stdin
            if stdin is not None:
                stdin.close()
        return {
            folder: Ended(code, last_words(folder, self._logged.pop(folder)) if code else "")
            for folder, code in codes.items()
        }

    def stop(self, folders: frozenset[Path] | None = None) -> None:
        for folder, process in self._running.items():
            if folders is None or folder in folders:
                process.send_signal(signal.SIGTERM)

    def kill(self, folders: frozenset[Path] | None = None) -> None:
        for folder, process in self._running.items():
            if folders is None or folder in folders:
                process.kill()

    def close(self) -> None:
        pass

    def _environment(self, slot: int, resources: Resources) -> Mapping[str, str]:
        cores = resources.cores or max(1, available_cores() // self.workers)
        env = {**defaults(cores), **os.environ, DRIVEN: "1"}
        gpus = [gpu for gpu in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        wanted = resources.gpus or 1
        if len(gpus) > wanted:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[(slot * wanted + i) % len(gpus)] for i in range(wanted))
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
