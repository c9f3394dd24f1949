"""What the driver asks of whatever runs trials: processes of this machine, a Ray cluster, Slurm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial gets. None is the launcher's own share: of this machine's cores, or one core of a cluster.

    ``memory`` is in bytes, ``seconds`` are those of one attempt by the clock; a trial that needs more is ended, and
    says so. None: no limit.
    """

    cores: int | None = None
    gpus: int | None = None
    memory: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Ended:
    """How the process of a trial ended.

    ``code`` is its exit code, negative for the signal that ended it, and None where nobody knows: the machine that it
    ran on is gone. ``words`` are the last that it said, in one line, or why it was lost. ``no_memory``: the kernel
    ended a process for want of memory while it ran.
    """

    code: int | None
    words: str = ""
    no_memory: bool = False


class Launcher(Protocol):
    """Runs ``engram exec FOLDER`` for the folders of trials, somewhere, each at most once at a time.

    The driver is its only caller, from one thread. Where that dies, processes of its machine and tasks of Ray save a
    checkpoint and end by themselves; jobs of Slurm go on, and `start` of the next driver takes them on.
    """

    workers: int
    """Trials at once, as far as is known now: what the time left is guessed with."""

    def free(self) -> int:
        """How many more trials could start now."""
        ...

    def start(self, folder: Path, resources: Resources) -> None:
        """Start the trial in ``folder``. Returns at once; what goes wrong later is in `finished`."""
        ...

    def finished(self) -> Mapping[Path, Ended]:
        """The trials that ended since the last call; all files of theirs are in their folders."""
        ...

    def wait(self, seconds: float) -> None:
        """Return after so long, or before where it can be seen that a trial may have ended."""
        ...

    def stop(self, folders: frozenset[Path] | None = None) -> None:
        """Ask trials, all by default, to save a checkpoint and leave."""
        ...

    def kill(self, folders: frozenset[Path] | None = None) -> None:
        """End trials, all by default, in the middle of their work."""
        ...

    def close(self) -> None:
        """Give back whatever is held; no trial runs any more."""
        ...
