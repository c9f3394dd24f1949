"""Which processes are ours, and what each of them is: read from /proc, whoever started them."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

MARKER = "STORM"
"""The variable in their environment that all processes of a storm have."""


@dataclass(frozen=True)
class Process:
    """``kind`` is "driver", "worker", "warm" (a server that forks workers), or "other"."""

    number: int
    kind: str
    words: tuple[str, ...]


def ours(token: str) -> list[Process]:
    """All that live and carry the token."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARKER}={token}".encode() not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            if (folder / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                continue
            words = (folder / "cmdline").read_text(errors="replace").split("\0")[:-1]
            found.append(Process(int(folder.name), _kind(folder, words), tuple(words)))
    return found


def _kind(folder: Path, words: list[str]) -> str:
    if words[0].startswith("engram "):
        return "worker"  # a forked one
    if "engram.benchmarks" not in words or not Path(words[0]).name.startswith("python"):
        return "other"  # the shell before a worker on a node of Ray among them
    command = words[words.index("engram.benchmarks") + 1]
    if command == "warm":  # a fork that has just begun has its words, and a pipe that tells it of the driver's death
        return "worker" if str((folder / "fd" / "0").readlink()).startswith("pipe:") else "warm"
    return {"sweep": "driver", "exec": "worker"}.get(command, "other")


def kill(number: int) -> bool:
    """SIGKILL; whether there was anything to kill."""
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
