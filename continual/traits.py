"""What strategies say of themselves (`engram.backbone.contract.Traits`), looked up by name; no torch here."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from engram.backbone.contract import Scalar, StrategyOptions, Traits
from engram.backbone.errors import UserError
from engram.backbone.options import options_of
from engram.backbone.registry import Registry

AUTO = "auto"
"""Strength of a penalty that is chosen on the first tasks."""


def traits(name: str, given: Mapping[str, Scalar] | None = None) -> Traits:
    """Traits of a strategy with the options that are given; none in particular where nobody knows the name.

    >>> traits("continual.er").boundaries, traits("continual.er", {"selection": "herding"}).boundaries
    (False, True)
    """
    return _declared(name, tuple(sorted((given or {}).items())), tuple(sys.path))[0]


def problems(name: str, given: Mapping[str, Scalar]) -> list[str]:
    """What a strategy has against the options that are given."""
    options = _declared(name, tuple(sorted(given.items())), tuple(sys.path))[1]
    return options.problems(name.partition(":")[2]) if isinstance(options, StrategyOptions) else []


def strength(name: str, given: Mapping[str, Scalar]) -> Scalar:
    """How strong the penalty of a strategy is, or `AUTO`; None for a strategy without one."""
    found, options = _declared(name, tuple(sorted(given.items())), tuple(sys.path))
    return getattr(options, found.strength, None) if found.strength else None


def because(name: str, given: Mapping[str, Scalar], trait: str) -> dict[str, Scalar]:
    """The options, each by itself, without which a strategy would not have a trait; none where it always has it.

    >>> because("continual.er", {"selection": "herding", "copies": False}, "boundaries")
    {'selection': 'herding'}
    """
    usual = getattr(traits(name), trait)
    return {key: value for key, value in given.items() if getattr(traits(name, {key: value}), trait) != usual}


@cache
def _declared(name: str, given: tuple[tuple[str, Scalar], ...], places: tuple[str, ...]) -> tuple[Traits, Any]:
    """Traits, and options where there are some; ``places`` are those that plugins are looked for in."""
    registry = Registry.discover()
    try:
        found = registry.entry("strategies", name).traits
        options = options_of(registry, "strategies", name, dict(given))
    except UserError:  # whoever checks names and options says what is wrong with them
        return Traits(), None
    if isinstance(options, StrategyOptions):
        found = options.traits(found, name.partition(":")[2])
    return found, options


def in_turn(names: Sequence[str]) -> list[str]:
    """Names of strategies in the order in which their hooks are called.

    >>> in_turn(["continual.ewc", "continual.agem", "continual.si"])
    ['continual.si', 'continual.ewc', 'continual.agem']
    """
    return sorted(names, key=lambda name: (traits(name).turn, name))


def said(name: str) -> str:
    """What a strategy is called in messages: ours without our plugin's name.

    >>> said("continual.si"), said("avalanche:Replay")
    ('si', 'avalanche:Replay')
    """
    return name.removeprefix("continual.")
