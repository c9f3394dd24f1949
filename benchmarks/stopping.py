"""How a worker learns that it should stop: a signal, or the death of the driver that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import Self

STOPPED = 143  # the shell's code for SIGTERM
GRACE_SECONDS = 15.0  # what a worker without a driver may still take for its step and its checkpoint
DRIVEN = "ENGRAM_DRIVEN"  # set by a launcher whose death shows as end of file on the worker's standard input


@dataclass
class Stop:
    """``asked`` turns True when the worker should save a checkpoint and leave; asked twice, it leaves at once."""

    asked: bool = False

    @classmethod
    def install(cls) -> Self:
        """Listen for SIGTERM and SIGINT and, when launched by a driver, for its death."""
        stop = cls()
        signal.signal(signal.SIGTERM, stop._on_signal)
        signal.signal(signal.SIGINT, stop._on_signal)
        if os.environ.get(DRIVEN):
            threading.Thread(target=stop._watch_driver, name="driver watch", daemon=True).start()
        return stop

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(STOPPED)
        self.asked = True

    def _watch_driver(self) -> None:
        while os.read(0, 4096):
            pass
        self.asked = True
        time.sleep(GRACE_SECONDS)
        sys.stderr.write("the driver is gone; leaving in the middle of a step\n")
        os._exit(STOPPED)
