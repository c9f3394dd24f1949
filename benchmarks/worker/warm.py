"""``engram warm EXPERIMENT``: a process that has imported an experiment and forks the workers of its trials.

A worker pays seconds for its imports, which are the same for every trial. Here they are paid once: each worker is a
fork, with its own session, log and pipe, that goes on as ``engram exec TRIAL_DIR`` would. It begins in the state that
such a process has after its imports, and no trial has ever run in the one that it is forked from. Which trials, it is
asked by a launcher over the socket that is its standard input; when that is closed, it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from engram.backbone.contract import Flags
from engram.backbone.options.named import things
from engram.backbone.options.schema import schema
from engram.backbone.registry import Registry, resolve
from engram.benchmarks.given import Given
from engram.benchmarks.planning.config import experiment_config
from engram.benchmarks.records.shapes import shape_of
from engram.benchmarks.records.stored import held
from engram.benchmarks.worker.provenance import environment
from engram.benchmarks.worker.title import entitle
from engram.benchmarks.worker.trial import main

MESSAGE = 2**16  # bytes of the longest one
CHANGED, UNFIT = "changed", "unfit"
_READ = ("config.json", "launch.json", "provenance.json", "progress.json", "result.json", "error.json")
THREADS_SECONDS = 0.1  # what the kernel may take to strike one off its list that has ended


def command(experiment: str) -> list[str]:
    """What starts the server of an experiment."""
    return [sys.executable, "-P", "-m", "engram.benchmarks", "warm", experiment]


def serve(given: Given[Flags]) -> int:
    """Fork a worker for every trial that is asked for, until nobody is there to ask."""
    control = socket.socket(fileno=os.dup(0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = _Server(control, given.words[0]).run()
    if job is not None:
        entitle(f"engram {Path(job['folder']).name} {given.words[0]}")
        _work(job)
    return 0


class _Server:
    def __init__(self, control: socket.socket, experiment: str) -> None:
        self.control, self.experiment = control, experiment
        self.files: dict[str, tuple[int, int]] = {}  # of the code that is loaded
        self.loaded: set[str] = set()
        self.unfit = False
        self.workers: dict[int, tuple[int, str]] = {}  # pidfd -> process, folder
        self.waiting = selectors.DefaultSelector()
        self.waiting.register(control, selectors.EVENT_READ)

    def run(self) -> dict[str, Any] | None:
        """None in the server, when it is no longer needed; in a worker what it was asked for."""
        while True:
            for key, _ in self.waiting.select():
                if key.fileobj is not self.control:
                    self._reap(key.fd)
                    continue
                text, files, _, _ = socket.recv_fds(self.control, MESSAGE, 2)
                if not text:
                    return None
                job = json.loads(text)
                if self._start(job, files):
                    return job

    def _start(self, job: Mapping[str, Any], files: list[int]) -> bool:
        """Fork a worker, or say why not; True in the worker. ``files``: its standard input and its log."""
        if why := self._refusal(Path(job["folder"])):
            self._say({"folder": job["folder"], "refused": why})
        elif (process := os.fork()) == 0:
            self._become(files)
            return True
        else:
            handle = os.pidfd_open(process)
            self.workers[handle] = (process, job["folder"])
            self.waiting.register(handle, selectors.EVENT_READ)
            self._say({"folder": job["folder"], "process": process}, handle)
        for file in files:
            os.close(file)
        return False

    def _become(self, files: list[int]) -> None:
        """In a worker: let go of all that is the server's."""
        os.setsid()
        self.waiting.close()
        self.control.close()
        for handle in self.workers:
            os.close(handle)
        for place, file in zip((0, 1, 2), (files[0], files[1], files[1]), strict=True):
            os.dup2(file, place)
        for file in files:
            os.close(file)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if (random := sys.modules.get("numpy.random")) is not None:
            random.seed()  # or all workers of an experiment without torch, which no seed is for, draw the same

    def _reap(self, handle: int) -> None:
        self.waiting.unregister(handle)
        os.close(handle)
        process, folder = self.workers.pop(handle)
        _, status = os.waitpid(process, 0)
        self._say({"folder": folder, "code": os.waitstatus_to_exitcode(status)})

    def _say(self, message: Mapping[str, Any], *files: int) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more, which the next look at the socket shows
            socket.send_fds(self.control, [json.dumps(message).encode()], list(files))

    def _refusal(self, folder: Path) -> str:
        """Why a worker has to begin as a process of its own; "" where a fork is as good."""
        if any(_stamp(file) != stamp for file, stamp in self.files.items()):
            return CHANGED  # a new process would import the code as it is now
        self._load(folder)
        return UNFIT if self.unfit or not _alone() else ""

    def _load(self, folder: Path) -> None:
        """Import what the trial will; what fails here fails there, and is said there."""
        registry, new, before = Registry.discover(), False, _open_files()
        for target in _targets(registry, self.experiment, held(folder / "config.json")):
            if target in self.loaded:
                continue
            self.loaded.add(target)
            new = True
            with contextlib.suppress(Exception, SystemExit):
                resolve(target)
            if "torch" not in sys.modules:
                break  # it says when to import torch: at the top of the experiment's module, or never
        if new:
            _prepare()
            self.unfit |= _open_files() > before or not fit()
            self.files = {file: _stamp(file) for file in _sources()}
            gc.collect()
            gc.freeze()  # or a worker's first collection copies every page that holds an object


def fit() -> bool:
    """Whether a fork of this process is as good as a new one: it has one thread, and no device was touched.

    What libraries do before a fork (OpenBLAS ends its threads) is done by one that does nothing else.
    """
    if (process := os.fork()) == 0:
        torch = sys.modules.get("torch")
        os._exit(int(torch is not None and torch.cuda._is_in_bad_fork()))
    _, status = os.waitpid(process, 0)
    return status == 0 and _alone()


def _alone() -> bool:
    """Whether this process has one thread."""
    deadline = time.monotonic() + THREADS_SECONDS
    while len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - a list, and once for every trial
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def _prepare() -> None:
    """Do what every worker would do anew, and remember."""
    environment([])  # asks packages and git
    for name in _READ:
        shape_of(name)
    if "torch" in sys.modules:
        from engram.backbone.seeding import seed_everything

        seed_everything(0)  # imports what it needs; every worker seeds for itself
    for each in list(weakref.finalize._registry):  # pyright: ignore[reportAttributeAccessIssue]
        known = each.peek()
        if known is not None and getattr(known[1], "__module__", "") == "torch.library":
            each.atexit = False  # at its end a process takes torch's operators apart one by one, for nothing


def _open_files() -> int:
    """How many there are: one that is left open by an import would be read by all workers from one place on."""
    return len(list(Path("/proc/self/fd").iterdir()))


def _targets(registry: Registry, experiment: str, about: Mapping[str, Any]) -> Iterator[str]:
    """Where the code is that a trial names. That of the user's own files is for its worker alone."""
    with contextlib.suppress(Exception):
        yield registry.entry("experiments", experiment).target
        for option in schema(experiment_config(registry, experiment)):
            if option.kind is None:
                continue
            entries = {name: entry for _, name, entry in registry.entries(option.kind)}
            for name in things(about.get("config", {}).get(option.key)):
                yield from (entries[part].target for part in name.split(":") if part in entries)


def _sources() -> Iterator[str]:
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            yield file


def _stamp(file: str) -> tuple[int, int]:
    try:
        found = os.stat(file)  # noqa: PTH116 - a path object for each of thousands costs more than the call
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _work(job: Mapping[str, Any]) -> NoReturn:
    """Be the worker of a trial, and end as a process does, but for its memory, which is shared and stays as it is."""
    if job["device"] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = job["device"]
    try:
        code = main(Path(job["folder"]))
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        code = 1
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(code)
