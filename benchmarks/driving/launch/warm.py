"""Workers that are forked from a process which has imported their experiment: `engram.benchmarks.worker.warm`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from engram.benchmarks.driving.launch.contract import Ended
from engram.benchmarks.driving.launch.process import told_by
from engram.benchmarks.worker.warm import MESSAGE, UNFIT, command

POSSIBLE = sys.platform == "linux" and hasattr(os, "pidfd_open") and hasattr(socket, "recv_fds")
DEVICE = "CUDA_VISIBLE_DEVICES"
"""What may differ between workers of one server: it is read when a device is first used, which no server does."""


class Server:
    """A process that forks workers for trials of one experiment.

    ``retired``: it takes no more trials, as its code is not that of the disk any more, or it is gone. ``unfit``: its
    experiment cannot be forked.
    """

    def __init__(self, experiment: str, environment: Mapping[str, str]) -> None:
        self.environment = {name: value for name, value in environment.items() if name != DEVICE}
        self.retired = self.unfit = self.gone = self.proven = False
        self.workers: dict[str, Forked] = {}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                command(experiment),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        ours.setblocking(False)
        self._control = ours

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Whether a worker with this environment can be forked from it."""
        rest = {name: value for name, value in environment.items() if name != DEVICE}
        return not self.retired and rest == self.environment

    def start(self, folder: Path, log: BinaryIO, environment: Mapping[str, str]) -> Forked | None:
        """Have a worker forked; None where that cannot be asked now."""
        reading, writing = os.pipe()
        job = {"folder": str(folder), "device": environment.get(DEVICE)}
        try:
            socket.send_fds(self._control, [json.dumps(job).encode()], [reading, log.fileno()])
        except BlockingIOError:  # it has not read what it was asked before
            os.close(writing)
            return None
        except OSError:
            os.close(writing)
            self._lost()
            return None
        finally:
            os.close(reading)
        self.workers[str(folder)] = worker = Forked(self, folder, writing)
        return worker

    def listen(self) -> None:
        """Hear what became of the workers that were asked for."""
        while not self.gone:
            try:
                text, handles, _, _ = socket.recv_fds(self._control, MESSAGE, 1)
            except BlockingIOError:
                return
            except OSError:
                text, handles = b"", []
            if not text:
                self._lost()
                return
            said = json.loads(text)
            self.workers[said["folder"]].hear(said, handles)

    def _lost(self) -> None:
        self.gone = self.retired = True
        self.unfit |= not self.proven  # another one would end before its first worker, too

    def refuse(self, why: str) -> None:
        self.retired = True
        self.unfit |= why == UNFIT

    @property
    def news(self) -> int | None:
        """A file that can be read from when it has said something; None where it is gone."""
        return None if self.gone else self._control.fileno()

    def close(self) -> None:
        """End it. Workers of it that are not over go on; nobody will say how they end."""
        self._process.kill()
        self._process.wait()
        self._control.close()


class Forked:
    """A worker that was asked of a server. ``refused``: there is none, and a new process may be one.

    ``owed``: signals for one that is not there yet.
    """

    def __init__(self, server: Server, folder: Path, pipe: int) -> None:
        self.server, self.folder, self.refused = server, folder, False
        self.handle: int | None = None  # a pidfd
        self.owed: list[int] = []
        self._pipe = pipe
        self._ended: Ended | None = None

    def hear(self, said: Mapping[str, Any], handles: list[int]) -> None:
        if "refused" in said:
            self.refused = True
            self.server.refuse(said["refused"])
        elif "code" in said:
            self._ended = Ended(said["code"])
        else:
            (self.handle,) = handles
            self.server.proven = True
            for number in self.owed:
                self.signal(number)

    def over(self) -> Ended | None:
        self.server.listen()
        if self._ended is None and self.server.gone:
            if self.handle is None:
                self.refused = True
            elif select.select([self.handle], [], [], 0)[0]:
                self._ended = told_by(self.folder)
        return self._ended

    def news(self) -> int | None:
        return self.handle if self.server.news is None else self.server.news

    def signal(self, number: int) -> None:
        if self.handle is None:
            self.owed.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)

    def release(self) -> None:
        os.close(self._pipe)
        if self.handle is not None:
            os.close(self.handle)
        self.server.workers.pop(str(self.folder), None)
