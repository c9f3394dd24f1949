"""The lines of text that recordings begin with; no torch here."""

from __future__ import annotations

import re

_MOST_BYTES = 2**20
_LAST = re.compile(r"end( of ascii header)?", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def text_header(blob: bytes, mark: bytes) -> tuple[list[str], int]:
    """The first lines that begin with ``mark``, without it, and where they end.

    What follows may begin with the same byte: a line that says ``end`` is the last one, and one with control
    characters, or that does not end, is none.
    """
    lines: list[str] = []
    start = 0
    while blob[start : start + len(mark)] == mark and not (lines and _LAST.fullmatch(lines[-1])):
        end = blob.find(b"\n", start, start + _MOST_BYTES)
        if end < 0 or start > _MOST_BYTES or _CONTROL.search(blob, start, end):
            break
        lines.append(blob[start + len(mark) : end].decode("latin-1").strip())
        start = end + 1
    return lines, start


def said(lines: list[str], word: str) -> str | None:
    """What follows a word that a line begins with, in any case; None where none does.

    >>> said(["Date 2020-09-14", "Width 304"], "width")
    '304'
    """
    for line in lines:
        first, _, rest = line.partition(" ")
        if first.lower() == word:
            return rest.strip()
    return None
