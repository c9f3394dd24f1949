"""Looks at the files of data sets for everything that would end a trial, before one starts; no torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from engram.backbone.data.class_folders import folder_of, pictures_of
from engram.backbone.data.corruptions.options import of_inner
from engram.backbone.data.decoding import Decoder, bombs_are_errors
from engram.backbone.data.encoded import Pictures
from engram.backbone.data.event_options import EventsOptions
from engram.backbone.data.keys import keys_of, refused
from engram.backbone.data.lists import folder_parts
from engram.backbone.data.metadata import described
from engram.backbone.data.options import FolderOptions, OmniglotOptions, PartOptions
from engram.backbone.data.places import missing_cifar, missing_idx, missing_omniglot, omniglot_parts
from engram.backbone.data.recordings.reading import find_recordings
from engram.backbone.data.recordings.survey import surveyed
from engram.backbone.data.survey import survey
from engram.backbone.errors import MissingData, UserError, must
from engram.backbone.registry import Registry

_MOST = 10  # classes that are named


def check_folder(
    path: str | None, options: FolderOptions | None, *, root: Path, download: bool, training: bool
) -> list[str]:
    """Problems of ``folder:PATH``: its layout and what is told of it, and then its pictures."""
    o = options or FolderOptions()
    try:
        parts = folder_parts(path, o.parts)
        pictures = pictures_of(parts)
        described(folder_of(path), pictures.paths, o)
    except UserError as error:
        return str(error).splitlines()
    counts = [len(paths) for paths in parts["train"].values()]
    sizes = {name: sum(map(len, part.values())) for name, part in parts.items()}
    return _problems(f"folder:{path}", list(parts["train"]), counts, sizes, pictures, o, training)


def check_parquet(
    path: str | None, options: PartOptions | None, *, root: Path, download: bool, training: bool
) -> list[str]:
    """Problems of ``parquet:PATH``: its tables, and then its pictures."""
    o = options or PartOptions()
    from engram.backbone.data.tables import find_tables  # pyarrow takes a moment that folders need not wait for

    try:
        found = find_tables(path, o.parts, o.asked)
    except UserError as error:
        return str(error).splitlines()
    counts = np.bincount(found.labels["train"], minlength=len(found.classes)).tolist()
    sizes = {name: len(labels) for name, labels in found.labels.items()}
    return _problems(f"parquet:{path}", found.classes, counts, sizes, found.pictures, o, training)


def check_events(
    path: str | None, options: EventsOptions | None, *, root: Path, download: bool, training: bool
) -> list[str]:
    """Problems of ``events:PATH``: its layout, and then its recordings, each of which is decoded."""
    o = options or EventsOptions()
    try:
        parts = find_recordings(path, root)
    except UserError as error:
        return str(error).splitlines()
    counts = [len(held) for held in parts["train"].values()]
    wrong = untrainable(f"events:{path}", list(parts["train"]), counts) if training else []
    wrong += [str(two_tests(o.test))] if o.test is not None and "test" in parts else []
    return wrong + surveyed([file for part in parts.values() for held in part.values() for file in held], o)[1]


def two_tests(share: float) -> UserError:
    """The error for a share of recordings to test on, where the folder has a test part."""
    return must("--dataset.test", "left out for a folder with a test part", share, "Leave it out.")


def _check_there(
    name: str,
    kind: str,
    find: Callable[[str, str, Path], MissingData | None],
    path: str | None,
    options: object,
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


def check_omniglot(
    path: str | None, options: OmniglotOptions | None, *, root: Path, download: bool, training: bool
) -> list[str]:
    """Whether Omniglot is there, with characters for every part of its split, and can be used as it is to be."""
    o = options or OmniglotOptions()
    lost = missing_omniglot("omniglot", "Omniglot", root)
    problems = [str(lost)] if lost is not None and not download else []
    if o.split != "within" or o.background is not None:
        problems += [str(disjoint_classes("omniglot"))] if training and o.split != "within" else []
        try:
            _ = lost or omniglot_parts(root, o.split, o.background)
        except UserError as error:
            problems += [] if download else [str(error)]
    return problems


def check_glyphs(path: str | None, options: object, *, root: Path, download: bool, training: bool) -> list[str]:
    """Whether glyphs can be used as they are to be: no part has the classes of another."""
    return [str(disjoint_classes("glyphs"))] if training else []


def check_another(path: str | None, options: object, *, root: Path, download: bool, training: bool) -> list[str]:
    """Problems of the set that another one is made of, as ``saccades:NAME`` is."""
    try:
        return Registry.discover().problems(path or "", {}, root=root, download=download, training=training)
    except UserError as error:
        return [str(error)]


def check_wrapped(path: str | None, options: object, *, root: Path, download: bool, training: bool) -> list[str]:
    """Problems of the set whose pictures another one shows, as ``corrupted:NAME`` does, with its options."""
    name = path or ""
    return Registry.discover().problems(name, of_inner(name, options), root=root, download=download, training=training)


def _problems(
    name: str,
    classes: Sequence[str],
    counts: Sequence[int],
    sizes: Mapping[str, int],
    pictures: Pictures,
    options: PartOptions,
    training: bool,
) -> list[str]:
    """What is wrong with a set of ``counts`` training images of each class and ``sizes`` pictures in each part."""
    disjoint = options.parts == "disjoint"
    unfit = [str(disjoint_classes(name))] if disjoint else untrainable(name, classes, counts)
    wrong = (unfit if training else []) + survey(pictures, options, whole=False)
    return wrong or (_repeated(pictures, sizes, options) if options.duplicates == "refuse" else [])


def _repeated(pictures: Pictures, sizes: Mapping[str, int], options: PartOptions) -> list[str]:
    """What will be refused when all is decoded: pictures of another part among those that are trained on.

    What a set without a part holds out is not known here.
    """
    try:
        with bombs_are_errors():
            decoder = Decoder.like(pictures.read([0])[0], pictures.name(0), options)
            blobs = ((pictures.read([index])[0], pictures.name(index)) for index in range(len(pictures)))
            keys = np.concatenate([keys_of(decoder.decode(blob, called)[None]) for blob, called in blobs])
    except UserError as error:
        return [str(error)]
    train, *others = np.split(keys, np.cumsum(list(sizes.values()))[:-1])
    again = {part: np.isin(held, train) for part, held in zip([*sizes][1:], others, strict=True)}
    return [str(refused(part, int(held.sum()), len(held))) for part, held in again.items() if held.any()]


def disjoint_classes(name: str) -> UserError:
    """The error for a set whose parts have classes of their own, where a classifier is to be trained."""
    step = "It is for few-shot episodes: leave out --dataset.parts or --dataset.split, or take another set."
    got = "one whose parts have classes of their own"
    return must(f"dataset {name!r}", "of the same classes in every part, to train a classifier on", got, step)


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
