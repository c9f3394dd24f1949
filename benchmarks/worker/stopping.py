"""How a worker learns that it should stop: a signal, or the death of the driver that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Self

STOPPED = 143  # the shell's code for SIGTERM
GRACE_SECONDS = 15.0  # of its main thread's processor time a worker without a driver may take to save a checkpoint
LONGEST_SECONDS = 600.0  # by the clock, for one that waits for what never comes
PARENT_SECONDS = 0.5  # between two looks at whether the parent lives
TORCHRUN = "TORCHELASTIC_RUN_ID"  # which torchrun sets; it leaves its processes behind where it is killed
DRIVEN = "ENGRAM_DRIVEN"  # set by a launcher whose death shows as end of file on the worker's standard input


@dataclass
class Stop:
    """``asked`` turns True when the worker should save a checkpoint and leave; asked twice, it leaves at once.

    ``why``: the limit that it has reached; "" where somebody wants it to stop.
    """

    asked: bool = False
    deserted: bool = False
    """Whether it was asked by the death of the driver."""
    why: str = ""

    @classmethod
    def install(cls) -> Self:
        """Listen for signals (SIGUSR2 is Slurm's, before a job's time is over), and for the death of a driver."""
        stop = cls()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, stop._on_signal)
        if os.environ.get(DRIVEN):
            stop._watch(_end_of_file)
        elif TORCHRUN in os.environ:
            stop._watch(partial(_orphaned, os.getppid()))
        return stop

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not self.why:
            os._exit(STOPPED)
        self.asked, self.why = True, ""

    def _watch(self, gone: Callable[[], None]) -> None:
        """Leave once ``gone``, which waits for the death of whoever started this process, returns."""
        threading.Thread(target=self._leave_after, args=(gone,), name="driver watch", daemon=True).start()

    def _leave_after(self, gone: Callable[[], None]) -> None:
        gone()
        self.deserted = self.asked = True
        # not by the clock alone: on a busy machine 15 seconds are not enough to work for one
        begun, worked = time.monotonic(), _worked()
        while _worked() - worked < GRACE_SECONDS and time.monotonic() - begun < LONGEST_SECONDS:
            time.sleep(GRACE_SECONDS / 50)
        sys.stderr.write("the driver is gone; leaving in the middle of a step\n")
        os._exit(STOPPED)


def _end_of_file() -> None:
    while os.read(0, 4096):
        pass


def _orphaned(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)


def _worked() -> float:
    """Seconds of processor time the main thread has had; the process, where threads have no clock of their own."""
    main = threading.main_thread().ident
    if main is None or not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time()
    return time.clock_gettime(time.pthread_getcpuclockid(main))
