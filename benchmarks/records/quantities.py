"""Amounts of memory and of time as people write them."""

from __future__ import annotations

import math
import re

_BYTES = {"B": 1} | {f"{prefix}iB": 2 ** (10 * n) for n, prefix in enumerate("KMGT", start=1)}
_BYTES |= {f"{prefix}B": 10 ** (3 * n) for n, prefix in enumerate("kMGT", start=1)}
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) *([A-Za-z]+)")


def parse_size(text: str) -> int:
    """Bytes.

    >>> parse_size("4GiB"), parse_size("1.5 MB")
    (4294967296, 1500000)

    Raises:
        ValueError: it is none, with what it must be.
    """
    match = _AMOUNT.fullmatch(text.strip())
    units = {unit.lower(): factor for unit, factor in _BYTES.items()}
    if (
        match is None
        or match[2].lower() not in units
        or (found := round(float(match[1]) * units[match[2].lower()])) < 1
    ):
        raise ValueError("an amount of memory with its unit (B, kB, KiB, MB, MiB, GB, GiB, TB or TiB), such as 4GiB")
    return found


def parse_duration(text: str) -> float:
    """Seconds.

    >>> parse_duration("2h"), parse_duration("90 s"), parse_duration("1h30min")
    (7200.0, 90.0, 5400.0)

    Raises:
        ValueError: it is none, with what it must be.
    """
    parts = [*_AMOUNT.finditer(text)]
    rest = _AMOUNT.sub("", text).strip()
    if rest or not parts or any(part[2] not in _SECONDS for part in parts):
        raise ValueError("a time with its unit (s, min, h or d), such as 2h or 1h30min")
    found = math.fsum(float(part[1]) * _SECONDS[part[2]] for part in parts)
    if not 0 < found < 1e9:
        raise ValueError("a time above 0")
    return found


def size(value: float) -> str:
    """An amount of memory for people.

    >>> size(4 * 2**30), size(1536), size(12)
    ('4 GiB', '1.5 KiB', '12 B')
    """
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value >= _BYTES[unit]:
            return f"{value / _BYTES[unit]:.3g} {unit}"
    return f"{value:.0f} B"


def duration(value: float) -> str:
    """A time for people, as exact as a limit is.

    >>> duration(7200.0), duration(90.0), duration(0.51)
    ('2 h', '90 s', '0.51 s')
    """
    if value >= 3600:
        return f"{value / 3600:.3g} h"
    return f"{value / 60:.3g} min" if value >= 120 else f"{value:.3g} s"
