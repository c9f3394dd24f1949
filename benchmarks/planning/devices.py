"""Whether several processes can share the batches of a trial, as far as is known without making anything."""

from __future__ import annotations

from engram.backbone.contract import ExperimentConfig
from engram.backbone.errors import UserError, must
from engram.backbone.registry import Registry
from engram.benchmarks.planning.config import used

_UNLESS_SAID = ("experiments", "objectives")
"""Kinds that are not data parallel unless their entries say so; of the others none but those that say they are not."""


def undivided(registry: Registry, experiment: str, config: ExperimentConfig) -> list[str]:
    """The names of what one process has to do alone; the experiment itself, or some of what it trains with."""
    if not registry.entry("experiments", experiment).data_parallel:
        return [experiment]
    found = list[str]()
    for kind, name in used(registry, config):
        said = registry.entry(kind, name).data_parallel
        if said is False or (said is None and kind in _UNLESS_SAID):
            found.append(f"{kind.removesuffix('s')} {name}")
    return list(dict.fromkeys(found))


def undividable(name: str, devices: int) -> UserError:
    """Why something cannot be worked on by so many processes."""
    return must("--devices", f"1 for {name}, whose numbers would be others", devices, "Leave it out.")
