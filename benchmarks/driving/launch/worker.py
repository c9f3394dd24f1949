"""One worker of this machine, as the launcher of local trials holds it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from engram.benchmarks.driving.launch.contract import Ended
from engram.benchmarks.driving.launch.process import command


class Worker(Protocol):
    """The process of a trial. Its standard input is a pipe that nobody writes to, whose end it takes for our death."""

    def over(self) -> Ended | None:
        """How it ended, without its last words; None as long as it works."""
        ...

    def news(self) -> int | None:
        """A file that can be read from once it may be over; None where this system has none."""
        ...

    def signal(self, number: int) -> None:
        """Send it a signal, where it still works."""
        ...

    def release(self) -> None:
        """Let go of what is held of one that is over."""
        ...


class Process:
    """A worker that is a new process."""

    def __init__(self, folder: Path, log: BinaryIO, environment: Mapping[str, str]) -> None:
        """Start it. Its own session keeps a terminal's ^C from reaching it before we decide what to do."""
        self._process = subprocess.Popen(
            command(folder),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        self._handle = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else None

    def over(self) -> Ended | None:
        code = self._process.poll()
        return None if code is None else Ended(code)

    def news(self) -> int | None:
        return self._handle

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def release(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._handle is not None:
            os.close(self._handle)
