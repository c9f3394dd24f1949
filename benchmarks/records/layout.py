"""Where things lie below ``--out``, and the locks there."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engram.backbone.atomic import remove_half_written
from engram.backbone.errors import must

LOG = "log.txt"
"""All that a trial's worker printed."""
OURS = ("contents.json", "sink.json")
"""What is written in ``--out`` itself: whatever else lies there may be its owner's, in whose home it may be."""
DRIVER = "driver.json"
"""Where the driver of a sweep runs, or last ran."""
MACHINES = "machines"
"""The folder of a sweep with what other machines than its driver's were sampled for, a folder of each."""
STATES = "ckpt"
"""The folder of a trial's checkpoints."""
MODELS = "models"
"""The folder below ``--out`` with what was fetched of registered models: a folder of each run, with its trial's."""


BUSY = 4
"""The exit code of whoever finds something held that it needs."""


class Busy(Exception):
    """Another process holds what this one needs."""


def trials_dir(out: Path) -> Path:
    return out / "trials"


def sweep_dir(out: Path, name: str) -> Path:
    return out / "sweeps" / name


def prepare(out: Path) -> Path:
    """Make ``--out`` and prove that it can be written.

    Raises:
        UserError: it cannot.
    """
    try:
        trials_dir(out).mkdir(parents=True, exist_ok=True)
        probe = out / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
        remove_half_written(out, OURS)
    except OSError as error:
        raise must(
            "--out", "a folder that can be written", f"{out} ({error.strerror})", "Choose another one."
        ) from None
    return out.resolve()


@contextmanager
def lock(path: Path, *, patience: float, what: str) -> Iterator[None]:
    """Hold a file lock that the kernel drops when this process dies.

    Raises:
        Busy: another process still holds it after ``patience`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Busy(f"{what} is held by another engram. Wait for it, or stop it.") from None
                time.sleep(0.1)
        yield
