"""What lies inside a folder and nothing else: a stranger's trial folder may hold names and links that lead out."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from engram.backbone.errors import must


def is_name(text: str) -> bool:
    """Whether ``text`` is the name of one thing in a folder, which may be joined to the folder's path.

    >>> is_name("nets"), is_name("../nets"), is_name(".."), is_name("")
    (True, False, False, False)
    """
    return text not in ("", ".", "..") and not {"/", "\0"} & set(text)


def inside(folder: Path, name: str) -> Path:
    """Where the file or folder called ``name`` lies, a path below ``folder``, with all links followed.

    Raises:
        OSError: there is none, or ``..`` or a link leads out of ``folder``.
    """
    try:
        path = (folder / name).resolve(strict=True)
    except (RuntimeError, ValueError):  # links in a circle, a name with a zero byte
        raise OSError(errno.EINVAL, "is no path", name) from None
    if not path.is_relative_to(folder.resolve()):
        raise PermissionError(errno.EPERM, "leads out of its folder", name)
    return path


def open_inside(folder: Path, name: str) -> BinaryIO:
    """The file called ``name`` in ``folder``, to be read.

    Raises:
        OSError: as of `inside`, or it is no plain file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        found = os.open(f"{folder}/{name}" if is_name(name) else inside(folder, name), flags)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        found = os.open(inside(folder, name), flags)  # a link
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise OSError(errno.EINVAL, "is no plain file", name)
    return os.fdopen(found, "rb")


def refuse_links_out(what: str, folder: Path) -> None:
    """See that whoever works in ``folder`` reads and writes nothing elsewhere.

    Raises:
        UserError: links in it, at any depth, lead out of it.
    """
    found, home = [], folder.resolve()
    for here, folders, files in os.walk(folder):
        for path in (Path(here, name) for name in (*folders, *files)):
            try:
                leads_out = path.is_symlink() and not path.resolve().is_relative_to(home)
            except RuntimeError:  # in a circle
                leads_out = True
            if leads_out:
                found.append(path.relative_to(folder).as_posix())
    if found:
        remedy = f"Put the files themselves there, or delete {folder}."
        raise must(what, "a folder without links out of it", ", ".join(sorted(found)[:5]), remedy)
