"""Trials as processes of this machine: one each, so that no crash, leak or seed of one reaches another."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from engram.benchmarks.driving.launch.contract import Ended, Resources
from engram.benchmarks.driving.launch.process import defaults, ended_by_kernel, last_words
from engram.benchmarks.driving.launch.warm import POSSIBLE, Forked, Server
from engram.benchmarks.driving.launch.worker import Process, Worker
from engram.benchmarks.records.layout import LOG
from engram.benchmarks.records.stored import held
from engram.benchmarks.records.trials import Record
from engram.benchmarks.worker.stopping import DRIVEN, STOPPED


@dataclass
class _Held:
    """A trial that was started: its worker, its slot, its environment.

    By then its log was ``logged`` bytes long, and the kernel had ended so many processes for want of memory.
    """

    worker: Worker
    slot: int
    environment: Mapping[str, str]
    logged: int
    ended_by_kernel: int = field(default_factory=ended_by_kernel)


class LocalLauncher:
    """At most ``workers`` trials at once, each with its share of the processor's cores.

    The first of an experiment is a process that imports all that it needs; later ones are forked from one that has.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._ours = dict(os.environ)  # as it is now: what libraries set in this process is for them
        self._running: dict[Path, _Held] = {}
        self._servers: dict[str, Server | None] = {}  # by experiment; None: a trial of it was started
        self._retired: list[Server] = []

    def free(self) -> int:
        return self.workers - len(self._running)

    def start(self, folder: Path, resources: Resources) -> None:
        """Start the worker of one trial. What it says goes to the trial's log, from the first import on."""
        slot = min({*range(self.workers)} - {each.slot for each in self._running.values()})
        environment = self._environment(slot, resources)
        with _log(folder) as log:
            logged = os.fstat(log.fileno()).st_size
            worker = self._forked(folder, log, environment) or Process(folder, log, environment)
        self._running[folder] = _Held(worker, slot, environment, logged)

    def _forked(self, folder: Path, log: BinaryIO, environment: Mapping[str, str]) -> Forked | None:
        """A worker of the server of the trial's experiment, which is started where need be; None without one."""
        experiment = Record(folder).experiment
        if held(folder / "launch.json").get("devices", 1) > 1:
            return None  # what it starts imports everything itself
        if not POSSIBLE or experiment not in self._servers:
            self._servers[experiment] = None
            return None
        server = self._servers[experiment]
        if server is not None and server.unfit:
            return None
        if server is None or server.retired:
            self._retired += [server] if server is not None else []
            server = self._servers[experiment] = Server(experiment, environment)
        return server.start(folder, log, environment) if server.suits(environment) else None

    def finished(self) -> Mapping[Path, Ended]:
        found: dict[Path, Ended] = {}
        for folder, each in list(self._running.items()):
            ended = each.worker.over()
            if ended is None and isinstance(each.worker, Forked) and each.worker.refused:
                ended = self._instead(folder, each, each.worker)
            if ended is None:
                continue
            del self._running[folder]
            each.worker.release()
            words = ended.words or (last_words(folder, each.logged) if ended.code else "")
            no_memory = ended.code == -signal.SIGKILL and ended_by_kernel() > each.ended_by_kernel
            found[folder] = Ended(ended.code, words, no_memory)
        return found

    def wait(self, seconds: float) -> None:
        found = {each.worker.news() for each in self._running.values()}
        news = [file for file in found if file is not None]
        if news:
            waiting = select.poll()
            for file in news:
                waiting.register(file, select.POLLIN)
            waiting.poll(seconds * 1000)
        else:
            time.sleep(seconds)

    def _instead(self, folder: Path, each: _Held, forked: Forked) -> Ended | None:
        """Start a process where a server refused to fork one; how it ended where that was not wanted any more."""
        if forked.owed:
            return Ended(STOPPED)
        forked.release()
        with _log(folder) as log:
            each.worker = Process(folder, log, each.environment)
        return None

    def stop(self, folders: frozenset[Path] | None = None) -> None:
        self._signal(signal.SIGTERM, folders)

    def kill(self, folders: frozenset[Path] | None = None) -> None:
        self._signal(signal.SIGKILL, folders)

    def _signal(self, number: int, folders: frozenset[Path] | None) -> None:
        for folder, each in self._running.items():
            if folders is None or folder in folders:
                each.worker.signal(number)

    def close(self) -> None:
        """End the servers; a worker that is there yet, for the driver broke off, saves a checkpoint and leaves."""
        for each in self._running.values():
            each.worker.release()
        self._running.clear()
        for server in (*self._retired, *self._servers.values()):
            if server is not None:
                server.close()

    def _environment(self, slot: int, resources: Resources) -> Mapping[str, str]:
        cores = resources.cores or max(1, available_cores() // self.workers)
        env = {**defaults(cores), **self._ours, DRIVEN: "1"}
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
