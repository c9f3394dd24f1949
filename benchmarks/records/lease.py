"""Who works in a folder that several machines see: what `layout.lock` is on one, where file locks hold no further."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engram.backbone.atomic import remove_half_written
from engram.benchmarks.records.layout import Busy

LEASE = "lease"
BEAT_SECONDS = 10.0
STALE_SECONDS = 45.0  # without a beat; by this machine's clock alone, as those of others may be wrong
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def lease(path: Path, what: str) -> Iterator[None]:
    """Hold a file that is touched as long as this process lives. Beside a lock: on this machine that one decides.

    What those who worked in its folder were writing when they were killed is removed.

    Raises:
        Busy: another machine's is being touched.
    """
    mine = f"{machine()}\n{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}\n"
    while not _create(path, mine):
        theirs = _read(path)
        if theirs and theirs.partition("\n")[0] != machine():
            _see_it_stale(path, theirs, what)
        if _read(path) == theirs:  # else somebody found it stale a moment earlier, and has a fresh one
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    for folder, _, _ in os.walk(path.parent):
        remove_half_written(Path(folder))
    over = threading.Event()
    beat = threading.Thread(target=_touch, args=(path, over), name="lease", daemon=True)
    beat.start()
    try:
        yield
    finally:
        over.set()
        beat.join()
        if _read(path) == mine:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def machine() -> str:
    """This machine, since it was started: hosts in containers may share a name."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return socket.gethostname()


def _create(path: Path, text: str) -> bool:
    """Make a file that is not there yet, whole at once, which one alone can do on a network file system, too."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _write(aside, text)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    try:
        os.link(aside, path)  # nobody reads a lease that says nothing yet, and takes it for nobody's
    except (FileExistsError, FileNotFoundError):  # the latter: another machine took it for a killed one's
        return False
    except OSError:  # no hard links here
        return _create_empty(path, text)
    finally:
        aside.unlink(missing_ok=True)
    return True


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        error.filename = str(path)  # which a full disk does not say
        raise


def _create_empty(path: Path, text: str) -> bool:
    """As `_create`, with a moment in which the file is empty."""
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(file, "w") as held:
        held.write(text)
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _see_it_stale(path: Path, theirs: str, what: str) -> None:
    first, deadline = _beat(path), time.monotonic() + STALE_SECONDS
    while time.monotonic() < deadline and _read(path) == theirs:
        if _beat(path) != first:
            host = theirs.partition("\n")[2].partition(" ")[0]
            raise Busy(f"{what} is held by another engram on {host}. Wait for it, or stop it.")
        time.sleep(min(1.0, STALE_SECONDS / 10))


def _beat(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _touch(path: Path, over: threading.Event) -> None:
    while not over.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
