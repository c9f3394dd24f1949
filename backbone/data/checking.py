"""Looks at the files of data sets for everything that would end a trial, before one starts; no torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from engram.backbone.data.class_folders import find_parts, pictures_of
from engram.backbone.data.decoding import Decoder, bombs_are_errors
from engram.backbone.data.encoded import Pictures
from engram.backbone.data.keys import keys_of, refused
from engram.backbone.data.options import PictureOptions
from engram.backbone.data.places import missing_cifar, missing_idx, missing_omniglot
from engram.backbone.data.survey import survey
from engram.backbone.errors import MissingData, UserError, must
from engram.backbone.registry import Registry

_MOST = 10  # classes that are named


def check_folder(
    path: str | None, options: PictureOptions | None, *, root: Path, download: bool, training: bool
) -> list[str]:
    """Problems of ``folder:PATH``: its layout, and then its pictures."""
    try:
        parts = find_parts(path)
    except UserError as error:
        return str(error).splitlines()
    counts = [len(paths) for paths in parts["train"].values()]
    return _problems(f"folder:{path}", list(parts["train"]), counts, pictures_of(parts), options, training)


def check_parquet(
    path: str | None, options: PictureOptions | None, *, root: Path, download: bool, training: bool
) -> list[str]:
    """Problems of ``parquet:PATH``: its tables, and then its pictures."""
    from engram.backbone.data.tables import find_tables  # pyarrow takes a moment that folders need not wait for

    try:
        found = find_tables(path)
    except UserError as error:
        return str(error).splitlines()
    counts = np.bincount(found.labels["train"], minlength=len(found.classes)).tolist()
    return _problems(f"parquet:{path}", found.classes, counts, found.pictures, options, training)


def _check_there(
    name: str,
    kind: str,
    find: Callable[[str, str, Path], MissingData | None],
    path: str | None,
    options: PictureOptions | None,
    *,
    root: Path,
    download: bool,
    training: bool,
) -> list[str]:
    """Whether a published set is there; its files are checked against their checksums when they are read."""
    lost = None if download else find(name, kind, root)
    return [] if lost is None else [str(lost)]


check_mnist = partial(_check_there, "mnist", "MNIST", missing_idx)
check_fashion_mnist = partial(_check_there, "fashion-mnist", "FashionMNIST", missing_idx)
check_kmnist = partial(_check_there, "kmnist", "KMNIST", missing_idx)
check_cifar10 = partial(_check_there, "cifar10", "CIFAR10", missing_cifar)
check_cifar100 = partial(_check_there, "cifar100", "CIFAR100", missing_cifar)
check_omniglot = partial(_check_there, "omniglot", "Omniglot", missing_omniglot)


def check_saccades(path: str | None, options: object, *, root: Path, download: bool, training: bool) -> list[str]:
    """Problems of the set that ``saccades:NAME`` shows to its camera."""
    try:
        return Registry.discover().problems(path or "", {}, root=root, download=download, training=training)
    except UserError as error:
        return [str(error)]


def _problems(
    name: str,
    classes: Sequence[str],
    counts: Sequence[int],
    pictures: Pictures,
    options: PictureOptions | None,
    training: bool,
) -> list[str]:
    chosen = options or PictureOptions()
    wrong = (untrainable(name, classes, counts) if training else []) + survey(pictures, chosen, whole=False)
    return wrong or (_repeated(pictures, sum(counts), chosen) if chosen.duplicates == "refuse" else [])


def _repeated(pictures: Pictures, count: int, options: PictureOptions) -> list[str]:
    """What will be refused when all is decoded: pictures of a test set among the first ``count``, which are trained on.

    What a set without a test set holds out is not known here.
    """
    try:
        with bombs_are_errors():
            decoder = Decoder.like(pictures.read([0])[0], pictures.name(0), options)
            blobs = ((pictures.read([index])[0], pictures.name(index)) for index in range(len(pictures)))
            keys = np.concatenate([keys_of(decoder.decode(blob, called)[None]) for blob, called in blobs])
    except UserError as error:
        return [str(error)]
    again = int(np.isin(keys[count:], keys[:count]).sum())
    return [str(refused("test", again, len(keys) - count))] if again else []


def untrainable(name: str, classes: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Why a network cannot learn these classes, of which there are so many training images each; a line for each.

    >>> untrainable("parquet:x", ["cat", "dog", "ape"], [5, 0, 0])
    ["every class of 'parquet:x' must be in the train set; got no image of 'dog', 'ape'. Add images, or unname it."]
    """
    problems = []
    if len(classes) < 2:
        problems.append(
            must(f"dataset {name!r}", "of at least two classes", f"{', '.join(classes)} alone", "Add another.")
        )
    if missing := [repr(each) for each, count in zip(classes, counts, strict=True) if not count]:
        step = "Add images, or unname it."
        more = f" and {len(missing) - _MOST} more" if len(missing) > _MOST else ""
        got = f"no image of {', '.join(missing[:_MOST])}{more}"
        problems.append(must(f"every class of {name!r}", "in the train set", got, step))
    return [str(problem) for problem in problems]
