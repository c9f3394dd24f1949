"""Whether several processes can share the batches of a trial, as far as is known without making anything."""

from __future__ import annotations

from collections.abc import Iterable

from engram.backbone.contract import ExperimentConfig, Kind
from engram.backbone.errors import UserError, must
from engram.backbone.options.named import things
from engram.backbone.options.schema import schema
from engram.backbone.registry import Registry
from engram.benchmarks.planning.config import experiment_config, used, wrapped
from engram.benchmarks.planning.space import Choice, Space

_UNLESS_SAID = ("experiments", "objectives")
"""Kinds that are not data parallel unless their entries say so; of the others none but those that say they are not."""


def undivided(registry: Registry, experiment: str, config: ExperimentConfig) -> list[str]:
    """The names of what one process has to do alone; the experiment itself, or some of what it trains with."""
    if not registry.entry("experiments", experiment).data_parallel:
        return [experiment]
    return _alone(registry, used(registry, config))


def undivided_choices(registry: Registry, experiment: str, space: Space) -> list[str]:
    """Such names among what a search may choose, whatever else it chooses with them."""
    axes = {axis.name: axis.values.values for axis in space if isinstance(axis.values, Choice)}
    found: list[tuple[Kind, str]] = []
    for option in schema(experiment_config(registry, experiment)):
        if option.kind is not None:
            names = (name for value in axes.get(option.name, ()) for name in things(value))
            found += (each for name in names for each in wrapped(registry, option.kind, name))
    return _alone(registry, found)


def _alone(registry: Registry, names: Iterable[tuple[Kind, str]]) -> list[str]:
    found = list[str]()
    for kind, name in names:
        said = registry.entry(kind, name).data_parallel
        if said is False or (said is None and kind in _UNLESS_SAID):
            found.append(f"{kind.removesuffix('s')} {name}")
    return list(dict.fromkeys(found))


def undividable(name: str, devices: int) -> UserError:
    """Why something cannot be worked on by so many processes."""
    return must("--devices", f"1 for {name}, whose numbers would be others", devices, "Leave it out.")
