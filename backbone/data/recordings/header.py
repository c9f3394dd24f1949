"""The lines of text that recordings begin with; no torch here."""

from __future__ import annotations

from engram.backbone.data.recordings.events import Damaged

_MOST_BYTES = 2**20


def text_header(blob: bytes, mark: bytes) -> tuple[list[str], int]:
    """The first lines that begin with ``mark``, without it, and where they end.

    A line ``% end`` is the last one: what follows may begin with the same byte.

    Raises:
        Damaged: a line does not end.
    """
    lines: list[str] = []
    start = 0
    while blob[start : start + len(mark)] == mark and (not lines or lines[-1].lower() != "end"):
        end = blob.find(b"\n", start, _MOST_BYTES)
        if end < 0:
            raise Damaged(f"the line of text at byte {start:,} does not end")
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
