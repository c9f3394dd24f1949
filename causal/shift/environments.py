"""Which images are trained on, chosen by and tested on, where some environments are held out of the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Named
from engram.backbone.data.columns import ENVIRONMENT, GROUP, numbered
from engram.backbone.data.load import Data, normalisation
from engram.backbone.data.sets import Split
from engram.backbone.data.splits import stratified
from engram.backbone.errors import UserError, must
from engram.causal.shift.known import held_out_problems, without_column

VIEW = "causal.shift"
_ORACLE = 2**31 + 3
"""A salt beyond those of `engram.backbone.data.load`, which are 1, 2, and 3 and a seed."""


@dataclass(frozen=True)
class Division:
    """How images are divided: names of the environments that are not trained on, and the share of the test images that
    oracle selection looks at, which are not scored.
    """

    held_out: tuple[str, ...] = ()
    oracle_share: float = 0.0

    def reference(self) -> Named | None:
        """How the record of a network names what it saw (`view`); None where that is the data as they are."""
        return Named(VIEW, 1, asdict(self)) if self != Division() else None


@dataclass(frozen=True)
class Divided:
    """Images divided.

    Attributes:
        data: with the environments trained on in its training and validation images. Its test images are all those of
            the environments held out, or without these the test images of the data; less ``oracle``.
        oracle: test images that only oracle selection looks at; None where there are none.
        seen: test images of the environments trained on; None where no environment is held out.
    """

    data: Data
    oracle: Split | None
    seen: Split | None


def divide(data: Data, how: Division) -> Divided:
    """Divide images as ``how`` says.

    Raises:
        UserError: an environment is unknown, none is left to train on, or one of the classes is in none that is left.
    """
    seen = None
    if how.held_out:
        data, seen = _without(data, how.held_out)
    kept, looked = stratified(data.test.labels, how.oracle_share, _ORACLE)
    if not len(looked):
        return Divided(data, None, seen)
    return Divided(replace(data, test=data.test.select(kept)), data.test.select(looked), seen)


def view(data: Data, options: Mapping[str, Any]) -> Data:
    """The data as a network of this experiment saw them (`engram.backbone.contract.Plugin.views`)."""
    return divide(data, Division(tuple(options["held_out"]), float(options["oracle_share"]))).data


def environments(split: Split | None) -> tuple[str, ...]:
    """The names of a split's environments, in ascending order; none where nothing is known of them."""
    return names(split, ENVIRONMENT)


def groups(split: Split | None) -> tuple[str, ...]:
    """The names of a split's groups, in ascending order; none where nothing is known of them."""
    return names(split, GROUP)


def names(split: Split | None, column: str) -> tuple[str, ...]:
    """The different values of a column, in ascending order; none without that column."""
    return () if split is None or column not in split.columns else numbered(split.columns[column])[1]


def require_columns(data: Data) -> None:
    """Refuse data of whose images neither groups nor environments are known.

    Raises:
        UserError: there are neither.
    """
    if GROUP not in data.test.columns and ENVIRONMENT not in data.train.columns:
        raise without_column(data.train.columns, held_out=False)


def _without(data: Data, held_out: tuple[str, ...]) -> tuple[Data, Split | None]:
    """The data with some environments as test images, and the test images of the others."""
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    held = {name: part for name, part in parts.items() if part is not None}
    for part in held.values():
        if ENVIRONMENT not in part.columns:
            raise without_column(part.columns, held_out=True)
    known = tuple(dict.fromkeys(name for part in held.values() for name in environments(part)))
    if problems := held_out_problems(held_out, environments(data.train), known):
        raise UserError("\n".join(map(str, problems)))
    outside = {name: _members(part, held_out) for name, part in held.items()}
    train = data.train.select((~outside["train"]).nonzero().squeeze(1))
    if lacking := set(range(len(data.classes))) - set(train.labels.unique().tolist()):
        names = ", ".join(data.classes[label] for label in sorted(lacking))
        rule, remedy = "such that every class is in an environment that is left", "Hold out another one."
        raise must("--held-out", rule, f"{', '.join(held_out)}, without which there is no {names}", remedy)
    test = _all_of([part.select(outside[name].nonzero().squeeze(1)) for name, part in held.items()])
    left = {name: part.select((~outside[name]).nonzero().squeeze(1)) for name, part in held.items() if name != "train"}
    mean, std = normalisation(train)
    validation = left.get("validation")
    found = replace(data, train=train, validation=validation or None, test=test, mean=mean, std=std)
    return found, left["test"] if len(left["test"]) else None


def _members(split: Split, held_out: tuple[str, ...]) -> Tensor:
    """Whether every image is of one of some environments, [N] bool."""
    numbers, names = numbered(split.columns[ENVIRONMENT])
    chosen = torch.tensor([name in held_out for name in names])
    return chosen[numbers]


def _all_of(parts: list[Split]) -> Split:
    first, *others = [part for part in parts if len(part)]
    for other in others:
        first = first.and_also(other)
    return first
