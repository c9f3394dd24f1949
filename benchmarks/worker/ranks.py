"""One trial by several processes: ``exec`` starts them, watches them and ends them together.

They find in their environment what torchrun sets (RANK, WORLD_SIZE and the like), so that they can be started by it as
well. The first one is the trial's worker as any other; the others do the same work and write nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from engram.benchmarks.records.stored import write_json
from engram.benchmarks.worker.stopping import DRIVEN, STOPPED, Stop

PLACE = "ENGRAM_RANKS"
"""Folder in which the processes of a trial meet, and leave the reasons why they fail."""
_POLL_SECONDS = 0.05
_SETTLE_SECONDS = 1.0  # in which others may say why, once one has failed: who loses a neighbour fails as well


@dataclass(frozen=True)
class Place:
    """Which of a trial's processes this one is. ``folder`` is where they meet; None under torchrun."""

    rank: int
    folder: Path | None

    @classmethod
    def here(cls) -> Place | None:
        """None where no processes were started for this trial."""
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return None
        folder = os.environ.get(PLACE)
        return cls(int(os.environ["RANK"]), None if folder is None else Path(folder))

    @property
    def store(self) -> str | None:
        """The file by which they find one another."""
        return None if self.folder is None else str(self.folder / "store")

    def fail(self, told: Mapping[str, str]) -> None:
        """Leave the reason why this process fails."""
        if self.folder is not None:
            _told(self.folder, self.rank).write_text(json.dumps(told), encoding="utf-8")

    def leave(self, stop: Stop) -> None:
        """Remove the folder behind the last process, where whoever made it is gone."""
        if self.folder is not None and stop.deserted:
            with suppress(OSError):  # others are there yet
                _told(self.folder, self.rank).unlink(missing_ok=True)  # which nobody will read
                self.folder.rmdir()


def _told(folder: Path, rank: int) -> Path:
    return folder / f"error-{rank}.json"


class Outcome(NamedTuple):
    """How a trial's processes ended: the exit code, and what to say; "" where it was said."""

    code: int
    said: str = ""


def supervise(folder: Path, count: int, stop: Stop) -> Outcome:
    """Run the trial in ``folder`` by so many processes; none of them outlives this call.

    Where this process is killed they read end of file on their standard inputs, save a checkpoint and leave.
    """
    with TemporaryDirectory(prefix="engram-ranks-") as place:
        started = [_start(folder, rank, count, place) for rank in range(count)]
        try:
            _wait(started, stop)
            codes = [each.poll() for each in started]
        finally:
            for each in started:
                each.kill()
                each.wait()
                _let_go(each)
        return _outcome(folder, Path(place), codes)


def _start(folder: Path, rank: int, count: int, place: str) -> subprocess.Popen[bytes]:
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    env = {
        **os.environ,
        **{name: str(rank) for name in ("RANK", "LOCAL_RANK")},
        **{name: str(count) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
        **{name: "lo" for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if name not in os.environ},
        "OMP_NUM_THREADS": str(max(1, threads // count)),
        DRIVEN: "1",
        PLACE: place,
    }
    command = [sys.executable, "-P", "-m", "engram.benchmarks", "exec", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=env, start_new_session=True)


def _wait(started: list[subprocess.Popen[bytes]], stop: Stop) -> None:
    """Until the trial is over: the first process has ended, or another one has failed."""
    asked = False
    while True:
        codes = [each.poll() for each in started]
        if codes[0] in (0, STOPPED):
            return
        if codes[0] is not None or any(code not in (None, 0, STOPPED) for code in codes):
            break
        if stop.asked and not asked:
            asked = True
            for each in started:
                _let_go(each) if stop.deserted else each.send_signal(signal.SIGTERM)
        time.sleep(_POLL_SECONDS)
    until = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < until and any(each.poll() is None for each in started):
        time.sleep(_POLL_SECONDS)


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Close a process's standard input, by which it learns that nobody drives it."""
    if process.stdin is not None:
        process.stdin.close()


def _outcome(folder: Path, place: Path, codes: list[int | None]) -> Outcome:
    """What became of the trial; why it failed is in its error.json then, whichever process it was."""
    if codes[0] in (0, STOPPED):
        return Outcome(codes[0])
    told = {rank: _read(_told(place, rank)) for rank in range(len(codes))}

    def cause(rank: int) -> tuple[int, int]:
        """What comes first is why: who was killed, who knows what is wrong, whose work broke off; ``codes`` has all."""
        code = codes[rank] or 0
        return (0 if code < 0 else 1 if told[rank].get("kind") != "crash" else 2, rank)

    first = min((rank for rank, code in enumerate(codes) if code not in (None, 0, STOPPED)), key=cause)
    code, why = codes[first] or 1, told[first]
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        message = f"process {first} of its {len(codes)} was ended by {name}{hint}; the same command goes on with it"
        code, why = 1, {"kind": "killed", "message": message, "traceback": ""}
    elif first == 0:
        return Outcome(code)
    elif not why:
        why = {"kind": "crash", "message": f"process {first} of its {len(codes)} ended with {code}", "traceback": ""}
    write_json(folder / "error.json", why, durable=True)
    return Outcome(code, why["message"])


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
