"""What a worker holds back for its last words on a full disk, and what it leaves in its folder."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engram.backbone.errors import must
from engram.benchmarks.records.layout import STATES
from engram.benchmarks.records.pace import PROGRESS

FULL = 74  # exit code, the shell's EX_IOERR: on a full disk no error.json may say it
RESERVE = ".reserve"
_RESERVED = 2**16
_LEAST = 2**20  # bytes: a disk with less is as good as full
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


def no_room(error: BaseException | None) -> OSError | None:
    """The error behind ``error`` that says a file could not grow, if that was its cause."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def full(path: Path, error: OSError) -> str:
    """What to say and do about it."""
    remedy = "Free some, or raise the limit on its files: then the same command goes on."
    return str(must(f"the disk of {path}", "one with room for what is written there", error.strerror, remedy))


def trouble(error: OSError) -> tuple[str, int]:
    """What to say and do about files that cannot be written, and the exit code; ("", 0) of any other error."""
    if lack := no_room(error):
        return full(Path(lack.filename).parent if lack.filename else Path.cwd(), lack), 1
    if error.errno in _FORBIDDEN and error.filename is not None:
        remedy = "Change that, or choose another --out: then the same command goes on."
        return str(must(str(error.filename), "readable and writable here", error.strerror, remedy)), 2
    return "", 0


def has_room(folder: Path) -> bool:
    """Whether a disk has some: what was in the way of one file may have been its size alone."""
    probe = folder / f".writable-{os.getpid()}"
    try:
        probe.write_bytes(os.urandom(_LEAST))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


@contextmanager
def reserve(folder: Path) -> Iterator[None]:
    """Hold room for the last words of whoever works in the folder: `release` gives it to them."""
    try:
        (folder / RESERVE).write_bytes(os.urandom(_RESERVED))
        yield
    finally:
        release(folder)


def release(folder: Path) -> None:
    (folder / RESERVE).unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Remove from the folder of a finished trial what only a resume would need."""
    shutil.rmtree(folder / STATES, ignore_errors=True)
    (folder / PROGRESS).unlink(missing_ok=True)
    release(folder)  # last: as long as it is there, the worker may have been killed before it got so far
