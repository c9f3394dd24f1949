"""Work in parts."""

from __future__ import annotations

from itertools import pairwise


def spans(count: int, at_once: int) -> list[slice]:
    """Spans of about equally many of ``count`` things, at most so many.

    >>> spans(7, 3)
    [slice(0, 2, None), slice(2, 5, None), slice(5, 7, None)]
    """
    parts = -(-count // at_once)
    return [slice(*span) for span in pairwise(round(k * count / parts) for k in range(parts + 1))]
