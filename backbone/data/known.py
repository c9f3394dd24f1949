"""What is known of data sets before a picture of them is read (`engram.backbone.contract.KnownData`); no torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from engram.backbone.contract import KnownData
from engram.backbone.data.class_folders import folder_of, pictures_of
from engram.backbone.data.corruptions.options import CorruptedOptions, of_inner
from engram.backbone.data.lists import folder_parts
from engram.backbone.data.metadata import described
from engram.backbone.data.options import FolderOptions, PartOptions
from engram.backbone.registry import Registry

ENVIRONMENT, GROUP, FOREGROUND = "environment", "group", "foreground"
PRESENT, CONCEPTS = "present", "concepts"
"""As `engram.backbone.data.columns` spells them, which holds them as tensors."""


def pictures_alone(path: str | None, options: object, *, root: Path) -> KnownData:
    """Of a set of pictures with their labels, of which nothing else is told."""
    return KnownData(columns={})


def known_folder(path: str | None, options: FolderOptions | None, *, root: Path) -> KnownData:
    """Of ``folder:PATH``, what names and tables of its files tell.

    Raises:
        UserError: they do not tell what they are asked for, or the folder is no such set.
    """
    o = options or FolderOptions()
    parts = folder_parts(path, o.parts)
    told = described(folder_of(path), pictures_of(parts).paths, o)
    count = sum(map(len, next(iter(parts.values())).values()))  # of training pictures, which come first
    columns: dict[str, tuple[str, ...] | None] = {name: _values(each[:count]) for name, each in told.items()}
    others = {name: _values(each[count:]) for name, each in told.items()}
    if o.group is not None:
        columns[GROUP] = None
        others.pop(GROUP, None)
    if o.environment is not None:
        columns[ENVIRONMENT], others[ENVIRONMENT] = columns[o.environment], others[o.environment]
    return KnownData(columns=columns, others=others)


def _values(texts: Iterable[str]) -> tuple[str, ...]:
    """The different ones, in the order of numbers where all are whole numbers."""
    found = set(texts)
    try:
        if all(str(int(each)) == each for each in found):
            return tuple(sorted(found, key=int))
    except ValueError:
        pass
    return tuple(sorted(found))


def known_parquet(path: str | None, options: PartOptions | None, *, root: Path) -> KnownData:
    """Of ``parquet:PATH``, the columns that are asked for."""
    o = options or PartOptions()
    made = {name for name, held in ((GROUP, o.group), (ENVIRONMENT, o.environment)) if held is not None}
    return KnownData(columns=dict.fromkeys([*o.asked, *made]))


def of_another(name: str | None, options: Mapping[str, object], *, root: Path) -> KnownData | None:
    """Of the data set that another one is made of, with the options that it has there.

    Raises:
        UserError: as for that set.
    """
    return Registry.discover().known(name or "", options, root=root)


def known_saccades(path: str | None, options: object, *, root: Path) -> KnownData | None:
    """Of ``saccades:NAME``: masks no longer fit."""
    return None if (found := of_another(path, {}, root=root)) is None else _without(found, FOREGROUND)


def known_corrupted(path: str | None, options: CorruptedOptions | None, *, root: Path) -> KnownData | None:
    """Of ``corrupted:NAME``."""
    return of_another(path, of_inner(path or "", options), root=root)


def known_digit_clutter(path: str | None, options: object, *, root: Path) -> KnownData:
    """Of ``digit-clutter:NAME``."""
    return KnownData(columns={PRESENT: None})


def _without(known: KnownData, name: str) -> KnownData:
    return replace(known, columns={each: values for each, values in known.columns.items() if each != name})
