"""What the objective that options name asks of its trial, and what of that is not there; no torch here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from engram.backbone.contract import AskingOptions, Asks, Scalar
from engram.backbone.errors import UserError, must
from engram.backbone.options import options_of
from engram.backbone.registry import Registry


def asked(objective: str, given: Mapping[str, Scalar]) -> tuple[Asks, list[str]]:
    """What an objective asks for with the options that are given, and which of these cannot be.

    >>> asked("afr", {})[0].columns, asked("afr", {"gamma": 4.0, "l2": 0.1})[0].columns
    (('group',), ())
    """
    registry = Registry.discover()
    declared = registry.entry("objectives", objective).asks
    options = options_of(registry, "objectives", objective, given)
    if isinstance(options, AskingOptions):
        return options.asks(declared), options.problems()
    return declared, []


def around(objective: str, asks: Asks, others: Sequence[str]) -> list[UserError]:
    """The problem, if any, that ``others`` (flags, or streams) put something around an objective by itself."""
    if not asks.by_itself or not others:
        return []
    rule = f"one that others can be put around, as it is with {' and '.join(others)}"
    return [must("--objective", rule, objective, "Use cross-entropy, or do without.")]


def beginning(objective: str, asks: Asks) -> list[UserError]:
    """The problem, if any, that an experiment trains no network for an objective to begin from."""
    if not asks.reference:
        return []
    rule = "one that begins from no other network, in an experiment that trains none"
    return [must("--objective", rule, objective, "Use backbone.train, or another objective.")]


def lacking(names: Iterable[str], columns: Collection[str]) -> list[UserError]:
    """An error for every name that is none of the columns of data."""
    known = ", ".join(columns) or "none"
    remedy = "Choose another objective, or data with that column."
    return [
        must("--dataset", f"one with a column {name!r}", f"columns: {known}", remedy)
        for name in names
        if name not in columns
    ]


def without_rows(strategy: str, objective: str) -> UserError:
    """The error where a strategy weighs the losses of rows, and the objective's is no mean of such."""
    rule = f"a mean over rows for {strategy}, which weighs them"
    return must("--objective", rule, objective, "Use cross-entropy, or another strategy.")


def without_validation(objective: str) -> UserError:
    """The error where an objective looks at images that are not trained on, and there are none."""
    rule = f"above 0 for {objective}, which looks at images that its network was not trained on"
    return must("--validation", rule, "no validation images", "Hold some out: --validation 0.2")
