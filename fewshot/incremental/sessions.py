"""Which classes and images come in which session: made from options and a seed, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Named
from engram.backbone.data.load import Data, normalisation
from engram.backbone.data.sets import Split
from engram.backbone.data.views import seen
from engram.backbone.errors import UserError, must
from engram.backbone.seeding import generator
from engram.fewshot.incremental.configs import SessionOptions

VIEW = "fewshot.incremental"
MOST_NAMED = 5


class Sessions:
    """The sessions of a data set whose every class has training and test images.

    Attributes:
        groups: the classes of every session, by number; those of the base session first.
        images: for every session the positions of its training images, ascending: [n] int64.
    """

    def __init__(self, options: SessionOptions, data: Data) -> None:
        """Raises UserError, a line for each thing, where the classes or their images do not suffice."""
        self.options, self.data = options, data
        self._check()
        order = torch.arange(len(data.classes))
        if options.class_order == "shuffled":
            order = torch.randperm(len(order), generator=generator(options.seed, "class order"))
        base, ways = options.base_classes, options.ways
        starts = range(base, len(order), ways)
        self.groups = [tuple(order[:base].tolist()), *(tuple(order[i : i + ways].tolist()) for i in starts)]
        few = [torch.cat([self._drawn(label) for label in group]).sort().values for group in self.groups[1:]]
        self.images = [_positions(data.train, self.groups[0]), *few]

    def _check(self) -> None:
        o, data, found = self.options, self.data, list[UserError]()
        classes = len(data.classes)
        if o.base_classes >= classes:
            rule = f"less than the {classes} classes of {data.name}, so that some are left for later sessions"
            found.append(must("--base-classes", rule, o.base_classes, "Use fewer, or a set of more classes."))
        elif (classes - o.base_classes) % o.ways:
            rule = f"a divisor of the {classes - o.base_classes} classes that are left after --base-classes"
            found.append(must("--ways", rule, o.ways, f"Use 1, or --base-classes {classes % o.ways or o.ways}."))
        counts = torch.bincount(data.train.labels, minlength=classes).tolist()
        if few := [i for i in range(classes) if counts[i] < o.shots]:
            rule, got = "no more than a class has training images", f"{o.shots}, and {self._named(few, counts)}"
            found.append(must("--shots", rule, got, "Use fewer, or hold out less with --validation."))
        for name, split in (("test", data.test), ("validation", data.validation)):
            if split is None:
                continue
            held = torch.bincount(split.labels, minlength=classes).tolist()
            if none := [i for i in range(classes) if not held[i]]:
                what, got = f"{name} images of every class of {data.name}", f"none of {self._named(none)}"
                remedy = "Add some." if name == "test" else "Raise --validation, or use 0."
                found.append(must(what, "there", got, remedy))
        if found:
            raise UserError("\n".join(map(str, found)))

    def _named(self, labels: list[int], counts: list[int] | None = None) -> str:
        """The first classes of a list, with how many images they have."""
        each = [
            repr(self.data.classes[label]) + ("" if counts is None else f" ({counts[label]} images)")
            for label in labels[:MOST_NAMED]
        ]
        more = len(labels) - len(each)
        return ", ".join(each) + (f" and {more} more" if more else "")

    def _drawn(self, label: int) -> Tensor:
        """The few images of a new class: the first ones of an order that the seed gives the class."""
        own = _positions(self.data.train, (label,))
        return own[
            torch.randperm(len(own), generator=generator(self.options.seed, "shots", label))[: self.options.shots]
        ]

    def __len__(self) -> int:
        return len(self.groups)

    def known(self, session: int) -> Tensor:
        """The classes met in the base session and up to a later one, ascending: [K] int64."""
        return torch.tensor([label for group in self.groups[: session + 1] for label in group]).sort().values

    @property
    def shown(self) -> Tensor:
        """Positions of the training images of all sessions, one session after another: [n] int64."""
        return torch.cat(self.images)

    @property
    def session_of(self) -> Tensor:
        """The session of each of these images: [n] int64."""
        return torch.cat([torch.full((len(rows),), index) for index, rows in enumerate(self.images)])

    def base(self) -> Data:
        """What the network is trained on: the base classes alone, numbered from 0, and normalised by their images."""
        data, base = self.data, self.known(0)
        table = torch.full((len(data.classes),), -1)
        table[base] = torch.arange(len(base))

        def part(split: Split) -> Split:
            return seen(split.select(_positions(split, base.tolist())), table)

        train = part(data.train)
        mean, std = normalisation(train)
        held = None if data.validation is None else part(data.validation)
        names = tuple(data.classes[label] for label in base.tolist())
        return replace(data, train=train, validation=held, test=part(data.test), classes=names, mean=mean, std=std)

    def reference(self) -> Named:
        """How the record of a network names what it saw (`view`)."""
        return Named(VIEW, 1, asdict(self.options))


def view(data: Data, options: Mapping[str, Any]) -> Data:
    """The data as a network of these sessions saw them: all training images of base classes, a few of the others."""
    sessions = Sessions(SessionOptions(**options), data)
    base = sessions.base()
    return replace(data, train=data.train.select(sessions.shown.sort().values), mean=base.mean, std=base.std)


def _positions(split: Split, labels: tuple[int, ...] | list[int]) -> Tensor:
    """The images of some classes, ascending: [n] int64."""
    return torch.isin(split.labels, torch.tensor(labels)).nonzero().squeeze(1)
