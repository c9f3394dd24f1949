"""The data set ``corrupted:NAME``: any set of stills with its pictures corrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engram.backbone.data.corruptions.options import CorruptedOptions, of_inner
from engram.backbone.data.corruptions.split import corrupted
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.data.load import open_source
from engram.backbone.data.sets import Source
from engram.backbone.registry import Registry


def open_corrupted(
    path: str | None, options: CorruptedOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """Another data set with every picture of all its parts corrupted; its parts, order, labels and classes stay.

    Args:
        path: the other data set as it is named everywhere: ``cifar10``, ``folder:PATH``.
        options: of the corruption, and those of the other data set beside them.
        root: as for the other data set, and so ``download``.
        download: whether the other data set may be fetched.
        budget_bytes: the other data set minds it; what it streams is corrupted as it comes.

    Raises:
        UserError: the other data set cannot be opened, or is not one of stills in one or three channels.
    """
    o, name = options or CorruptedOptions(), path or ""
    base = open_source(name, of_inner(name, o), root=root, download=download)
    parts = {each: corrupted(part, o.kind, o.severity, o.corruption_seed) for each, part in base.parts.items()}
    digest, version = Fingerprint(), Registry.discover().entry("datasets", f"corrupted:{name}").version
    digest.words((base.fingerprint, "corrupted", *map(str, (version, o.kind, o.severity, o.corruption_seed))))
    return replace(base, parts=parts, fingerprint=digest.hexdigest(), pictures=base.pictures or base.fingerprint)
