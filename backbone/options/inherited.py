"""What an experiment takes over from the trials that it is made from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from engram.backbone.contract import EXPERIMENT, Input
from engram.backbone.options.checking import Checker
from engram.backbone.options.schema import Option, owners, schema
from engram.backbone.registry import Registry


@cache
def made_from(cls: type) -> tuple[tuple[Option, str], ...]:
    """The options of a configuration that name other trials, each with the role of the trial."""
    found = (
        (option, next((mark.role for mark in option.metadata if isinstance(mark, Input)), None))
        for option in schema(cls)
    )
    return tuple((option, role) for option, role in found if role is not None)


def inherited(registry: Registry, cls: type, config: Mapping[str, Any], experiment: str) -> dict[str, Any]:
    """What the options of an experiment are told of another trial (`engram.backbone.contract.Inputs`).

    That is `understood`, the ids of the trials it is made from by the fields that name such trials, and what it ran.
    """
    ids = {option.field: config[option.key] for option, _ in made_from(cls) if config.get(option.key) is not None}
    return {**understood(registry, cls, config), **ids, EXPERIMENT: experiment}


def understood(registry: Registry, cls: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the plain configuration of another trial says of the options of an experiment, checked, by field.

    The trials it is made from are left out, and so is what the options cannot hold.
    """
    found: dict[str, Any] = {}
    options, others = schema(cls), {option.field for option, _ in made_from(cls)}
    for option in options:
        if option.key not in config or option.field in others:
            continue
        held = {option.key: config[option.key]}
        if option.options_of is not None:
            owner = owners(cls)[option.field]
            held[owner.key] = config.get(owner.key)
        checker = Checker(registry, lambda name: name, "")
        values = checker.check(cls, held)
        if not checker.problems and option.field in values:
            found[option.field] = values[option.field]
    return found
