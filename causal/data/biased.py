"""The data set ``biased:NAME``: any set of stills with a shortcut that tells the class in training and not at test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.changed import ChangedSplit, places_of
from engram.backbone.data.columns import FOREGROUND, GROUP, Column, without_classes
from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.options import of_inner
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.data.load import TEST_SHARE, open_source, with_part
from engram.backbone.data.sets import Source, Split
from engram.backbone.data.subgroups import subgroups
from engram.backbone.errors import must
from engram.backbone.registry import Registry
from engram.backbone.seeding import derive
from engram.causal.data.options import BiasedOptions
from engram.causal.data.painting import KEY, LOSSY, Painter, grey, palette

ALIGNED = {"colour": 0.99, "double-colour": 1.0, "texture": 1.0, "patch": 0.99, "background": 0.995}
"""Share of the training images whose shortcut is that of their class, where nothing else is asked for."""
_BY_MASK = ("double-colour", "texture", "background")  # that paint what is behind an object
_MARKED = 128  # ink so bright belongs to the object
_AT_ONCE = 4096
_NONE = -1.0


def open_biased(
    path: str | None, options: BiasedOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """Images ``[N, 3, H, W]`` of another data set, with its parts, order and classes, and a shortcut in each.

    Whether an image has the shortcut of its class, of which other one, and how that looks is a function of the seed,
    the image's part and its place in it, for each shortcut by itself. So shares are met as lots meet them. Test images
    have the shortcut of any class; a set without a test part gives the fifth that is tested on without this, too.

    Columns: one for each shortcut, which says of which class it is (``colour of 3``); ``group``, class and shortcut,
    or with several of them class and for each whether it is its own; ``foreground``, where the object is. What the
    other set knows beside this it tells as well.

    Args:
        path: the other data set as it is named everywhere: ``mnist``, ``folder:PATH``.
        options: of the bias, and those of the other data set beside them.
        root: as for the other data set, and so ``download``.
        download: whether the other data set may be fetched.
        budget_bytes: the other data set minds it; what it streams is painted as it comes.

    Raises:
        UserError: the other data set cannot be opened, is not one of stills in one or three channels, has too few
            classes or classes of their own in every part, or a mask is needed that it does not have.

    Source: Nam et al. 2020 (LfF, arXiv 2007.02561) for colour, Sauer and Geiger 2021 (CGN, arXiv 2101.06046) for
    double-colour and texture, Joshi et al. 2023 (SpuCo, arXiv 2306.11957) for background.
    """
    o, name = options or BiasedOptions(), path or ""
    opened = open_source(name, of_inner(name, o), root=root, download=download)
    pairs = o.bias == "background" and len(opened.classes) == 10 if o.pairs is None else o.pairs
    _check(name, opened, o, pairs)
    base = with_part(opened, "test", TEST_SHARE)
    if o.unbiased_validation:
        base = with_part(base, "validation", o.unbiased_validation)
    table = torch.arange(len(base.classes)) // (2 if pairs else 1)
    classes = _paired(base.classes) if pairs else base.classes
    bias = _Bias(o, classes, table, Painter(o, palette(len(classes))))
    parts = {part: bias.applied(split, part) for part, split in base.parts.items()}
    digest, version = Fingerprint(), Registry.discover().entry("datasets", f"biased:{name}").version
    own = [f"{each.name}={getattr(o, each.name)}" for each in fields(BiasedOptions)]
    digest.words((base.fingerprint, "biased", str(version), *own))
    pictures = base.pictures or base.fingerprint
    return replace(base, parts=parts, classes=classes, fingerprint=digest.hexdigest(), pictures=pictures)


@dataclass(frozen=True)
class _Bias:
    """What is done to every part.

    Attributes:
        options: which shortcuts, and how often.
        classes: names of the classes that images are of.
        table: [classes of the other set] int64, which of these each is.
        painter: makes the images.
    """

    options: BiasedOptions
    classes: tuple[str, ...]
    table: Tensor
    painter: Painter

    def share(self, part: str) -> float:
        """Of the images of a part, those whose shortcut is that of their class; below 0: none has one."""
        if part == "train" or (part == "validation" and not self.options.unbiased_validation):
            return ALIGNED[self.options.bias] if self.options.aligned is None else self.options.aligned
        tested = {"random": 1 / len(self.classes), "own": 1.0, "other": 0.0, "none": _NONE}
        return tested[self.options.test_bias if part == "test" else "random"]

    def applied(self, split: Split, part: str) -> ChangedSplit:
        """A part with its shortcuts."""
        o, count = self.options, len(self.classes)
        draws = Draws.of(derive(o.bias_seed, f"biased/{part}"), places_of(split))
        chance = draws.uniform(3 + 2 * len(self.options.shortcuts))
        true = self.table[split.labels]
        noisy = part == "train" or (part == "validation" and not o.unbiased_validation)
        wrong = (chance[:, 0] < o.label_noise) & noisy
        labels = torch.where(wrong, another(true, chance[:, 1], count), true)
        found = {
            name: shortcut(true, self.share(part), chance[:, 3 + 2 * k : 5 + 2 * k], count)
            for k, name in enumerate(self.options.shortcuts)
        }
        known: dict[str, Column] = {
            **found,
            KEY: torch.from_numpy(draws.keys.view(np.int64)),
            LOSSY: (chance[:, 2] < o.feature_noise) & noisy,
        }
        columns = {**without_classes(split.columns), **self._told(labels, found)}
        if FOREGROUND in split.columns:
            known[FOREGROUND] = split.columns[FOREGROUND]
        elif split.in_shape[0] == 1:
            columns[FOREGROUND] = inked(split)
        shape = (3, *split.in_shape[1:])
        return ChangedSplit(split, self.painter, known, columns, labels=labels, in_shape=shape)

    def _told(self, labels: Tensor, found: dict[str, Tensor]) -> dict[str, Column]:
        """The columns of the shortcuts, by name, and ``group``."""
        told: dict[str, Column] = {}
        for name, which in found.items():
            words = name.replace("_", " ")
            names = (*(f"{words} of {each}" for each in self.classes), f"no {words}")  # -1 is the last
            told[name] = tuple(names[each] for each in which.tolist())
        values = [told[name] for name in found]
        if len(found) > 1:
            values = [_whose(name, which, labels) for name, which in found.items()]
        together = tuple(", ".join(each) for each in zip(*values, strict=True))
        return {**told, GROUP: subgroups(self.classes, labels, together)}


def _whose(name: str, which: Tensor, labels: Tensor) -> tuple[str, ...]:
    words = name.replace("_", " ")
    own = torch.where(which < 0, 2, (which == labels).long()).tolist()
    return tuple(f"{('other', 'own', 'no')[each]} {words}" for each in own)


def shortcut(labels: Tensor, share: float, chance: Tensor, classes: int) -> Tensor:
    """Of which class each image's shortcut is, ``[N] int64``; -1 where ``share`` is below 0.

    Args:
        labels: [N] int64.
        share: of the images that have that of their class; the others have any other one's.
        chance: [N, 2] float64 in (0, 1).
        classes: how many there are.
    """
    if share < 0:
        return torch.full_like(labels, -1)
    return torch.where(chance[:, 0] < share, labels, another(labels, chance[:, 1], classes))


def another(labels: Tensor, chance: Tensor, classes: int) -> Tensor:
    """Any other class than ``labels: [N] int64``, each equally likely, by ``chance: [N]`` in (0, 1)."""
    return (labels + 1 + (chance * (classes - 1)).long()) % classes


def inked(split: Split) -> Tensor:
    """Where a grey picture has bright ink, ``[N, H, W] bool``."""
    order = torch.arange(len(split))
    return torch.cat([grey(images) >= _MARKED for images, _, _ in split.batches(order, _AT_ONCE, "cpu")])


def _paired(classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(" or ".join(classes[first : first + 2]) for first in range(0, len(classes), 2))


def _check(name: str, source: Source, options: BiasedOptions, pairs: bool) -> None:
    """Refuse what cannot be biased.

    Raises:
        UserError: naming what is needed.
    """
    train = source.train
    if train.frames is not None or train.in_shape[0] not in (1, 3):
        got = "event frames" if train.frames is not None else f"{train.in_shape[0]} channels"
        raise must("biased:NAME", "the name of a data set of stills, grey or in three channels", got, "Take another.")
    if source.disjoint:
        got = "one whose parts have classes of their own"
        raise must(f"dataset {name!r}", "one with the same classes in every part, to be biased", got, "Take another.")
    if len(source.classes) < (least := 3 if pairs else 2):
        raise must(
            f"dataset {name!r}", f"of at least {least} classes, to be biased", len(source.classes), "Take another."
        )
    if options.bias in _BY_MASK and train.in_shape[0] == 3 and FOREGROUND not in train.columns:
        rule = f"grey or with a column {FOREGROUND}, for --dataset.bias {options.bias}"
        raise must(f"dataset {name!r}", rule, "colour without one", "Use --dataset.bias colour or patch.")
