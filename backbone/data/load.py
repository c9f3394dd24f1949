"""From a dataset's name to the three sets a network is trained, chosen and tested on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from engram.backbone.contract import Scalar
from engram.backbone.data.checking import disjoint_classes, untrainable
from engram.backbone.data.duplicates import Keyed, Repeated, apart
from engram.backbone.data.sets import ALL, Data, Source, Split, Used
from engram.backbone.data.splits import dealt, stratified
from engram.backbone.errors import UserError, must
from engram.backbone.options import options_of
from engram.backbone.registry import Registry

BUDGET_BYTES = 4 * 2**30
"""Sets whose pixels take more than this are streamed from their files."""
TEST_SHARE = 0.2
"""Of a source that has no test set of its own."""
_TEST, _VALIDATION, _USED = 1, 2, 3  # salts: the choices are independent; from 3 on there is one for every seed
_ONE_GREY_LEVEL = 1 / 255


def open_source(name: str, options: Mapping[str, Scalar], *, root: Path, download: bool) -> Source:
    """Open a registered dataset, ``NAME`` or ``NAME:PATH``; every file is read and checked.

    Raises:
        UserError: the name, an option or a file is wrong.
    """
    registry = Registry.discover()
    opener = registry.load("datasets", name)
    chosen = options_of(registry, "datasets", name, options)
    path = name.partition(":")[2] or None
    return opener(path, chosen, root=root, download=download, budget_bytes=BUDGET_BYTES)


def load(
    name: str,
    options: Mapping[str, Scalar],
    *,
    root: Path,
    download: bool = False,
    validation: float = 0.1,
    used: Used = ALL,
) -> Data:
    """The sets to train, choose and test on; the same ones for every seed and on every machine.

    A source without a test set of its own gives a fixed stratified fifth; ``validation`` is the stratified share of
    the remaining train images that is held out, 0 for none; of those left, only ``used`` are trained on. Mean and
    standard deviation are of these.

    Raises:
        UserError: as `open_source`, or the set cannot be trained on.
    """
    _check_share(validation)
    return _same(name, open_source(name, options, root=root, download=download), validation, used)


def _same(name: str, source: Source, validation: float, used: Used = ALL) -> Data:
    if source.disjoint:
        raise disjoint_classes(name)
    sets = _sets(source, validation, used)
    _check_trainable(name, source, sets.train, sets.test)
    if validation and not sets.validation:
        got = f"{validation} of {len(sets.train)} images"
        raise must("--validation", "enough for one image", got, "Hold out more, or none with --validation 0.")
    return replace(_as_data(name, source, sets), used=used)


def load_disjoint(
    name: str, options: Mapping[str, Scalar], *, root: Path, download: bool = False, validation: float = 0.2
) -> Data:
    """The sets of few-shot episodes: no class stands in two of them; the same ones for every seed and machine.

    They are the parts of a source of class-disjoint parts. Otherwise its classes are dealt out, with all their images:
    a fixed fifth of them to the test set, and the share ``validation`` of the others to the validation set, two or more
    each. So are the classes to train on where a source lacks one of these parts. With ``validation`` 0 there is no
    such set, and the source's own is trained on as well. Labels number the classes of all sets together
    (`Data.classes`); those of one are ``split.labels.unique()``.

    Raises:
        UserError: as `open_source`, or a set would have fewer than two classes.
    """
    _check_share(validation)
    return _disjoint(name, open_source(name, options, root=root, download=download), validation)


def load_either(
    name: str, options: Mapping[str, Scalar], *, root: Path, download: bool = False, validation: float = 0.1
) -> Data:
    """As `load`, or as `load_disjoint` where the parts of the source have classes of their own.

    Raises:
        UserError: as these two.
    """
    _check_share(validation)
    source = open_source(name, options, root=root, download=download)
    return (_disjoint if source.disjoint else _same)(name, source, validation)


def _disjoint(name: str, source: Source, validation: float) -> Data:
    keyed = _keyed(source)
    if not source.disjoint:
        keyed = {"train": _all(keyed)}
    elif not validation and "validation" in keyed:
        keyed["train"] = _all({"train": keyed["train"], "validation": keyed["validation"]})
    wanted = {"test": (TEST_SHARE, _TEST), **({"validation": (validation, _VALIDATION)} if validation else {})}
    for part, (share, salt) in wanted.items():
        if part not in keyed:
            keyed["train"], keyed[part] = _by_class(keyed["train"], share, salt)
    for part in ("train", *wanted):
        if (count := len(keyed[part].split.labels.unique())) < 2:
            step = "Take a set of more classes, or hold out more with --validation, or none with 0."
            raise must(f"the {part} part of {name!r}", "of at least two classes of its own", count, step)
    train = keyed["train"]
    repeated: tuple[Repeated, ...] = ()
    for part in wanted:
        train, found = apart(train, keyed[part], part, source.duplicates)
        repeated += found
    held = keyed["validation"].split if validation else None
    return replace(_as_data(name, source, _Sets(train.split, held, keyed["test"].split, repeated)), disjoint=True)


def load_for_scoring(
    name: str,
    options: Mapping[str, Scalar],
    *,
    root: Path,
    download: bool = False,
    split: Literal["test", "validation", "train", "all"] = "test",
    validation: float = 0.1,
    used: Used = ALL,
    trained_on: Collection[str] = (),
) -> tuple[Split, tuple[str, ...], str]:
    """One set to score a trained network on, the class names, and the fingerprint of the source.

    A source that has one split only is scored whole when the test set is asked for. Where its pictures are those of a
    set whose fingerprint is in ``trained_on``, changed or not, it is split as `load` splits it: most of the whole would
    be images that the network was trained on.

    Raises:
        UserError: as `open_source`, or the split wanted has no image.
    """
    source = open_source(name, options, root=root, download=download)
    if split == "all":
        chosen = _all(_keyed(source)).split
    elif split == "test" and source.test is None and not source.shows(trained_on):
        chosen = source.train
    elif source.disjoint:
        chosen = source.parts.get(split)
    else:
        sets = _sets(source, validation, used)
        chosen = {"train": sets.train, "validation": sets.validation, "test": sets.test}[split]
    if not chosen:
        raise must(f"the {split} split of {name!r}", "at least one image", "none", "Choose another --split.")
    return chosen, source.classes, source.fingerprint


def with_part(source: Source, part: Literal["test", "validation"], share: float) -> Source:
    """A source that has this part: its own, or the fixed stratified share of its training images that `load` takes."""
    if part in source.parts:
        return source
    keyed = _keyed(source)
    kept, held = stratified(source.train.labels, share, _TEST if part == "test" else _VALIDATION)
    keyed |= {"train": keyed["train"].select(kept), part: keyed["train"].select(held)}
    keys = [each.keys for each in keyed.values() if each.keys is not None]
    parts = {name: each.split for name, each in keyed.items()}
    return replace(source, parts=parts, keys=torch.cat(keys) if keys else None)


@dataclass(frozen=True)
class _Sets:
    """Three sets with no image in common but those that the source has twice."""

    train: Split
    validation: Split | None
    test: Split
    repeated: tuple[Repeated, ...]


def _check_share(validation: float) -> None:
    if not 0 <= validation < 1:
        raise must("--validation", "at least 0 and less than 1", validation, "A tenth is usual: 0.1.")


def _keyed(source: Source) -> dict[str, Keyed]:
    """The parts of a source, each with the keys of its images."""
    sizes = [len(part) for part in source.parts.values()]
    keys = [None] * len(sizes) if source.keys is None else source.keys.split(sizes)
    return {name: Keyed(part, key) for (name, part), key in zip(source.parts.items(), keys, strict=True)}


def _sets(source: Source, validation: float, used: Used = ALL) -> _Sets:
    sets = _whole_sets(source, validation)
    if used == ALL:
        return sets
    kept, _ = stratified(sets.train.labels, 1 - used.share, _USED + used.seed)
    return replace(sets, train=sets.train.select(kept))


def _whole_sets(source: Source, validation: float) -> _Sets:
    parts = _keyed(with_part(source, "test", TEST_SHARE))
    train, test = parts["train"], parts["test"]
    train, in_test = apart(train, test, "test", source.duplicates)
    if not validation:
        return _Sets(train.split, None, test.split, in_test)
    chosen = parts.get("validation")
    if chosen is None:
        kept, held = stratified(train.split.labels, validation, _VALIDATION)
        train, chosen = train.select(kept), train.select(held)
    train, in_validation = apart(train, chosen, "validation", source.duplicates)
    return _Sets(train.split, chosen.split, test.split, in_test + in_validation)


def _all(parts: Mapping[str, Keyed]) -> Keyed:
    """All parts, one after another."""
    first, *others = parts.values()
    split, keys = first.split, [first.keys]
    for other in others:
        split, keys = split.and_also(other.split), [*keys, other.keys]
    known = [each for each in keys if each is not None]
    return Keyed(split, torch.cat(known) if len(known) == len(keys) else None)


def _by_class(keyed: Keyed, share: float, salt: int) -> tuple[Keyed, Keyed]:
    """Images of the classes that are kept, and of those held out."""
    classes, labels = keyed.split.labels.unique(return_inverse=True)
    held = torch.isin(labels, dealt(len(classes), share, salt)[1])
    return keyed.select((~held).nonzero().squeeze(1)), keyed.select(held.nonzero().squeeze(1))


def _as_data(name: str, source: Source, sets: _Sets) -> Data:
    train = sets.train
    mean, std = normalisation(train)
    about = (source.classes, train.in_shape, mean, std, source.fingerprint, train.frames)
    facts = {key: value for each in sets.repeated for key, value in each.facts.items()}
    cautions = tuple(each.caution for each in sets.repeated if each.caution is not None)
    whose = {"held_out": source.test is None, "pictures": source.pictures}
    return Data(name, train, sets.validation, sets.test, *about, facts, cautions, **whose)


def _check_trainable(name: str, source: Source, train: Split, test: Split) -> None:
    counts = torch.bincount(train.labels, minlength=len(source.classes)).tolist()
    if problems := untrainable(name, source.classes, counts):
        raise UserError("\n".join(problems))
    if not len(test):
        got = f"{len(train)} images and none to test on"
        raise must(f"dataset {name!r}", "large enough to hold out a fifth", got, "Add images or a test set.")


def normalisation(split: Split) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, ``[C] float32``, of pixels in [0, 1]."""
    sums, squares, count = split.moments()
    mean = sums.double() / count
    std = (squares.double() / count - mean**2).clamp(min=0).sqrt()
    return (mean / 255).float(), (std / 255).clamp(min=_ONE_GREY_LEVEL).float()
