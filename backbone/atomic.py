"""Writing files whole, and removing what was not finished."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

_HALF = re.compile(r"\.(.+?)\.(\d+)(\.tmp|\.[0-9a-f]{8})?")


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write all of it or nothing; what fails leaves nothing behind.

    Args:
        durable: have it on the disk before the name appears.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(temporary, data, durable)
        try:
            temporary.replace(path)
        except FileNotFoundError:  # another machine, which does not see this process, took it for a killed one's
            _write(temporary, data, durable)
            temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # which a full disk does not say
        raise


def _write(path: Path, data: bytes, durable: bool) -> None:
    with path.open("wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def remove_half_written(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove what processes were writing in ``folder`` when they were killed, as far as that can be.

    Args:
        names: as in `half_written`.
    """
    with contextlib.suppress(OSError):
        for path, process in half_written(folder, names):
            if not _lives(process):
                path.unlink(missing_ok=True)


def half_written(folder: Path, names: Collection[str] | None = None) -> Iterator[tuple[Path, int]]:
    """Files in ``folder`` that wait for their name (``.NAME.PROCESS``), each with the process that writes it.

    Args:
        names: those that are meant, in a folder that is not ours alone; None: all.
    """
    with os.scandir(folder) as found:
        for entry in found:
            match = _HALF.fullmatch(entry.name)
            if match and (names is None or match[1] in names) and entry.is_file(follow_symlinks=False):
                yield Path(entry.path), int(match[2])


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
