"""Numbers drawn by name: what is drawn for one text depends on no other."""

from __future__ import annotations

import hashlib


def share(text: str) -> float:
    """A number in [0, 1) for a text, with 48 bits.

    >>> share("0/search/lr/1") == share("0/search/lr/1") != share("0/search/lr/2")
    True
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48
