"""What Ray's tasks do on their nodes. It is sent there, and needs Python alone: a node without engram can say so."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from engram.benchmarks.driving.launch.packing import pack, unpack

LOG = "log.txt"  # `engram.benchmarks.records.layout.LOG`; nothing of engram's is imported on a node
RELAY = 'trap : TERM; "$@"; exit $?'
"""A shell between Ray's process and the worker: what Ray kills when its process ends are that one's own children, and
the worker is to find its input closed and save a checkpoint."""
LEFT_SECONDS = 60.0
IN_A_ROW_SECONDS = 4.0
"""Between two interrupts that are to kill, at most."""


def look(probe: str, token: str, code: str) -> tuple[str, bool, str]:
    """(host, whether it sees the driver's folder, what ``code`` printed or why it could not be run)."""
    try:
        shared = Path(probe).read_text() == token
    except OSError:
        shared = False
    try:
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=100)
    except (OSError, subprocess.TimeoutExpired) as error:
        return socket.gethostname(), shared, str(error)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return socket.gethostname(), shared, lines[-1] if lines else f"{sys.executable} ended with {done.returncode}"


def run(folder: str, environment: Mapping[str, str], packed: bytes | None) -> tuple[int, str, bytes | None]:
    """Run a trial where it lies, or what was sent of it: its exit code, last words, and the folder to be put back."""
    if packed is None:
        return *_work(Path(folder), environment), None
    base = Path(tempfile.gettempdir(), f"engram-ray-{os.getuid()}")
    base.mkdir(mode=0o700, exist_ok=True)
    _tidy(base)
    home = Path(tempfile.mkdtemp(dir=base))
    with (home / "held").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        there = home / "trials" / Path(folder).name
        unpack(packed, home / "trials")
        code, words = _work(there, environment)
        try:
            back = pack({there.name: there})
        except OverflowError as error:
            code, words, back = 1, f"the node cannot send it back: {error}", None
        shutil.rmtree(home, ignore_errors=True)
    return code, words, back


def _work(folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """An interrupt asks the worker to stop, two in a row kill it. One alone may come again: Ray loses some."""
    with (folder / LOG).open("ab") as log:
        begun = log.tell()
        worker = subprocess.Popen(
            ["/bin/sh", "-c", RELAY, "sh", sys.executable, "-P", "-m", "engram.benchmarks", "exec", str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    code, asked = None, 0.0
    while code is None:
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = worker.wait(timeout=0.5)
        except KeyboardInterrupt:
            if not asked:
                os.killpg(worker.pid, signal.SIGTERM)
            elif time.monotonic() - asked < IN_A_ROW_SECONDS:
                os.killpg(worker.pid, signal.SIGKILL)
            asked = time.monotonic()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what it did is on its way back
    ended_by = code - 128 if code > 128 and code != 128 + signal.SIGTERM else 0
    return -ended_by or code, _last_line(folder / LOG, begun) if code else ""


def _last_line(log: Path, begun: int) -> str:
    with log.open("rb") as file:
        file.seek(max(begun, log.stat().st_size - 4096))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")


def _tidy(base: Path) -> None:
    """Remove what tasks left that were killed, once their workers are gone, too."""
    for home in base.iterdir():
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            if time.time() - home.stat().st_mtime < LEFT_SECONDS:
                continue
            for path in (home / "held", *home.glob("trials/*/lock")):
                fcntl.flock(held.enter_context(path.open()), fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(home, ignore_errors=True)
