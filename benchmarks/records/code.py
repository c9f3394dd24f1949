"""Which code runs here: one line that is equal on two machines when they compute by the same programs."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import engram

SOURCES = (".py", ".c", ".toml", ".txt")
BESIDE = ("torch", "torchvision", "numpy")


@cache
def fingerprint() -> str:
    """engram's version and a sha256 over its sources, and the versions of what computes beside it.

    Builds of one version, as for GPUs and for none, count as the same.
    """
    digest = hashlib.sha256()
    root = Path(engram.__file__).parent
    found = (Path(here, name) for here, _, names in os.walk(root, followlinks=True) for name in names)
    for path in sorted(each for each in found if each.suffix in SOURCES):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    beside = ", ".join(f"{name} {_version(name)}" for name in BESIDE)
    return f"engram {_version('engram')} {digest.hexdigest()[:16]}, {beside}"


def _version(name: str) -> str:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return "none"
