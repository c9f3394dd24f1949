"""The limits of a trial: the memory that its processes hold, and how long one attempt takes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engram.backbone.errors import must
from engram.benchmarks.records.quantities import duration, size
from engram.benchmarks.records.stored import write_json
from engram.benchmarks.worker.disk import release
from engram.benchmarks.worker.stopping import Stop

LOOK_SECONDS = 0.25
LEAST_GRACE_SECONDS, LONGEST_GRACE_SECONDS = 10.0, 60.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


class OverTime(Exception):
    """A trial took longer than it may; its state is in a checkpoint."""


@dataclass(frozen=True)
class Limits:
    """``memory`` in bytes, ``seconds`` of one attempt; None: as much as there is."""

    memory: int | None = None
    seconds: float | None = None

    @contextmanager
    def watched(self, folder: Path, stop: Stop, process: int) -> Iterator[None]:
        """Have the trial in ``folder`` end when it reaches a limit, as long as this lasts.

        Its memory is that of ``process`` and all that this started. At the end of its time it is asked for a checkpoint
        first, and ended where that takes too long.
        """
        if self.memory is None and self.seconds is None:
            yield
            return
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(folder, stop, process, over), name="limits", daemon=True)
        watch.start()
        try:
            yield
        finally:
            over.set()

    def _watch(self, folder: Path, stop: Stop, process: int, over: threading.Event) -> None:
        begun = time.monotonic()
        while not over.wait(LOOK_SECONDS):
            took = time.monotonic() - begun
            if self.memory is not None and (found := resident(process)) > self.memory:
                _leave(folder, "memory", out_of_memory(self.memory, found))
            if self.seconds is not None and took > self.seconds:
                if not stop.asked:
                    stop.why, stop.asked = over_time(self.seconds, took), True
                if took > self.seconds + grace(self.seconds):
                    _leave(folder, "time", over_time(self.seconds, took, saved=False))


def grace(seconds: float) -> float:
    """How long a trial of such a limit has for its last checkpoint: as long again, but no less than the least."""
    return min(max(seconds, LEAST_GRACE_SECONDS), LONGEST_GRACE_SECONDS)


def over_time(seconds: float, took: float, *, saved: bool = True) -> str:
    """What to say and do about a trial that took too long."""
    what = "" if saved else ", in the middle of its work"
    rule, got = f"at most {duration(seconds)} (--time)", f"{duration(took)}{what}"
    return str(must("the time of a trial", rule, got, "Raise --time: the same command then goes on."))


def out_of_memory(memory: int, found: int) -> str:
    """What to say and do about a trial that held too much."""
    remedy = "Raise --memory, or make it smaller: the same command then goes on."
    return str(must("the memory of a trial", f"at most {size(memory)} (--memory)", size(found), remedy))


def resident(process: int) -> int:
    """Bytes in memory of a process and all that it started; 0 where the system does not tell."""
    return sum(_resident(each) for each in _with_descendants(process))


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0  # it has ended


def _with_descendants(process: int) -> Iterator[int]:
    yield process
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _with_descendants(int(child))


def _leave(folder: Path, kind: str, message: str) -> None:
    """End this process and those that it started, with the reason on the disk; one that is done just now stays so."""
    if not (folder / "result.json").exists():
        release(folder)
        with contextlib.suppress(OSError):
            write_json(folder / "error.json", {"kind": kind, "message": message, "traceback": ""}, durable=True)
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()
    for process in list(_with_descendants(os.getpid()))[1:]:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    os._exit(1)
