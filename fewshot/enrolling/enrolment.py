"""Which pictures are enrolled, and which are asked about then: a pure function of the data and a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Named
from engram.backbone.data.columns import joined, numbered
from engram.backbone.data.load import normalisation
from engram.backbone.data.sets import Data, Split
from engram.backbone.data.views import seen
from engram.backbone.errors import UserError, must
from engram.backbone.seeding import generator

VIEW = "fewshot.enrol"
WRITER = "writer"
_MOST = 10  # classes that are named


def enrolment(data: Data, shots: int, seed: int) -> Data:
    """Data whose training images are the pictures to enrol and whose test images are those asked about.

    Labels number the classes enrolled, in the order of their names' labels. More shots are the pictures of fewer and
    others besides.

    Args:
        data: of `engram.backbone.data.load.load` without validation images, or of `load_disjoint`.
        shots: pictures of each class.
        seed: chooses them.

    Raises:
        UserError: there are too few classes, or too few pictures of some: a line for each problem.
    """
    first, second = _pools(data)
    support, queries = chosen(first, second, shots, seed)
    labels = first.labels.unique()
    names = [data.classes[label] for label in labels.tolist()]
    asked = first if second is None else second
    table = torch.full((len(data.classes),), -1)
    table[labels] = torch.arange(len(labels))
    enough = torch.bincount(table[first.labels[support]], minlength=len(labels))
    left = torch.bincount(table[asked.labels[queries]], minlength=len(labels))
    if problems := _problems(names, enough, left, shots):
        raise UserError("\n".join(map(str, problems)))
    train, test = seen(first.select(support), table), seen(asked.select(queries), table)
    mean, std = normalisation(train)
    return replace(data, train=train, validation=None, test=test, classes=tuple(names), mean=mean, std=std)


def view(data: Data, options: Mapping[str, Any]) -> Data:
    """`enrolment` as a saved network names it (`engram.backbone.contract.Plugin.views`)."""
    return enrolment(data, options["shots"], options["seed"])


def view_of(shots: int, seed: int) -> Named:
    """The name of `enrolment` in the record of a network."""
    return Named(VIEW, 1, {"shots": shots, "seed": seed})


def _pools(data: Data) -> tuple[Split, Split | None]:
    """Where pictures to enrol come from, and where those asked about do; None: they are the others of the first."""
    if data.disjoint:
        return data.test, None
    return (data.train.and_also(data.test), None) if data.held_out else (data.train, data.test)


def chosen(first: Split, second: Split | None, shots: int, seed: int) -> tuple[Tensor, Tensor]:
    """Positions in ``first`` of so many pictures a class, or all there are, and of those asked about.

    Where writers are known, those of a class come one after another in an order that all classes share, so that few
    writers draw what is enrolled; none of them is asked.
    """
    asked = first if second is None else second
    random, writers = generator(seed, "pictures to enrol"), _writers(first, asked)
    key = torch.rand(len(first), generator=random, dtype=torch.float64)
    if writers is not None:
        turns = torch.randperm(int(torch.cat(writers).max()) + 1, generator=random)
        key += turns[writers[0]]  # whole numbers tell writers apart, fractions their pictures
    order = key.argsort(stable=True)
    order = order[first.labels[order].argsort(stable=True)]
    counts = torch.bincount(first.labels)
    rank = torch.arange(len(order)) - (counts.cumsum(0) - counts)[first.labels[order]]
    support = order[rank < shots].sort().values
    free = torch.ones(len(asked), dtype=torch.bool)
    if second is None:
        free[support] = False
    if writers is not None:
        free &= ~torch.isin(writers[1], writers[0][support])
    return support, free.nonzero().squeeze(1)


def _writers(first: Split, asked: Split) -> tuple[Tensor, Tensor] | None:
    """The writers of the pictures of two splits, numbered together; None where they are not known."""
    known = joined([first.columns, asked.columns])
    if WRITER not in known:
        return None
    one, two = numbered(known[WRITER])[0].split([len(first), len(asked)])
    return one, two


def _problems(names: Sequence[str], enrolled: Tensor, left: Tensor, shots: int) -> list[UserError]:
    """Why these classes cannot be enrolled, of which there are so many pictures."""
    found: list[UserError] = []
    if len(names) < 2:
        found.append(must("the classes to enrol", "at least two", f"{', '.join(names)} alone", "Add another."))
    if short := _named(names, enrolled, enrolled < shots):
        step = "Lower --shots, or add pictures."
        found.append(must("every class to enrol", f"of at least {shots} pictures (--shots)", short, step))
    if none := _named(names, left, (left == 0) & (enrolled == shots)):
        rule = "left with a picture to ask about, by another writer where writers are known"
        found.append(must("every class to enrol", rule, none, "Lower --shots, or add pictures."))
    return found


def _named(names: Sequence[str], counts: Tensor, wrong: Tensor) -> str:
    each = [
        f"{name!r} has {count}" for name, count, bad in zip(names, counts.tolist(), wrong.tolist(), strict=True) if bad
    ]
    more = f" and {len(each) - _MOST} more" if len(each) > _MOST else ""
    return ", ".join(each[:_MOST]) + more
