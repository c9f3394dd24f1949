"""Files of data sets: regular ones of a size that can be held; no torch here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from engram.backbone.data.names import shown
from engram.backbone.errors import UserError, must

MOST_BYTES = 2**29
"""Of one picture or one table of pixels: an uncompressed picture of as many pixels as Pillow decodes takes less."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def unfit(path: Path, what: str, most: int | None = MOST_BYTES) -> UserError | None:
    """Why a file cannot be read: it is not there, not a regular one, or larger than ``most``; None when it can.

    It is not opened: to open a device does something, to open a pipe waits for ever.
    """
    try:
        found = path.stat()
    except OSError as error:
        return must(what, "a readable file", f"{shown(path)} ({error.strerror})", "Restore it.")
    out = "Take it out of the set."
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        return must(what, "a regular file", f"{kind}: {shown(path)}", out)
    if most is not None and found.st_size > most:
        return must(what, f"at most {most:,} bytes", f"{found.st_size:,} in {shown(path)}", out)
    return None


def read(path: Path, what: str) -> bytes:
    """The content of a file.

    Raises:
        UserError: it is `unfit`, or it cannot be read.
    """
    if error := unfit(path, what):
        raise error
    try:
        with path.open("rb") as file:
            return file.read(os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise must(what, "a readable file", f"{shown(path)} ({error.strerror})", "Restore it.") from error
