"""The options of things that another option names: ``backbone.width``, and of several ``strategies.si.c``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, make_dataclass, replace
from typing import Annotated, Any

from engram.backbone.contract import Flag
from engram.backbone.errors import UserError
from engram.backbone.options.schema import Option, schema
from engram.backbone.registry import Registry


def things(thing: Any) -> tuple[str, ...]:
    """The names in the value of an option: one name, a list of names, or None."""
    if thing is None or isinstance(thing, str):
        return () if thing is None else (thing,)
    return tuple(thing)


def short(name: str) -> str:
    """What one of several things is called among the options: its name without its plugin and its path.

    >>> short("continual.si"), short("avalanche:Replay")
    ('si', 'avalanche')
    """
    return name.partition(":")[0].rpartition(".")[2]


def options_within(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """From the options of several things those of one of them, by the names that it gives them.

    >>> options_within({"qcfs.levels": 8, "spiking.steps": 4}, "snn.qcfs")
    {'levels': 8}
    """
    prefix = short(name) + "."
    return {key.removeprefix(prefix): value for key, value in options.items() if key.startswith(prefix)}


def is_known(registry: Registry, owner: Option, thing: str) -> bool:
    """Whether a thing of the owner's kind has that name, and an option may give it."""
    try:
        return not registry.entry(owner.kind or "backbones", thing).instead
    except UserError:
        return False


def named_options(registry: Registry, owner: Option, thing: Any) -> type | None:
    """The options dataclass of the thing that ``owner`` names; None when it has none or does not exist.

    Of several things it has one field for each, under its name without its plugin, that holds the thing's own.
    """
    found = {
        short(each): registry.options(owner.kind, each)
        for each in things(thing)
        if owner.kind is not None and is_known(registry, owner, each)
    }
    classes = {name: cls for name, cls in found.items() if cls is not None}
    if not owner.many or not classes:
        return next(iter(classes.values()), None)
    fields_ = [
        (name.replace("-", "_"), Annotated[cls, Flag(name)], field(default_factory=cls))
        for name, cls in classes.items()
    ]
    return make_dataclass("Options", fields_, frozen=True, kw_only=True)


def named_schema(registry: Registry, owner: Option, thing: Any) -> tuple[Option, ...] | None:
    """The options of the thing that ``owner`` names; of several things each under its thing's name, ``si.c``."""
    if any(".py:" in each for each in things(thing)):  # what stands in a user's file may change
        return _named_schema(registry, owner, thing)
    key = (owner.kind, owner.many, things(thing))
    if key not in registry.schemas:
        registry.schemas[key] = _named_schema(registry, owner, thing)
    return registry.schemas[key]


def _named_schema(registry: Registry, owner: Option, thing: Any) -> tuple[Option, ...] | None:
    cls = named_options(registry, owner, thing)
    if cls is None or not owner.many:
        return None if cls is None else schema(cls)
    return tuple(
        replace(sub, field=f"{part.key}.{sub.key}", key=f"{part.key}.{sub.key}")
        for part in schema(cls)
        for sub in schema(part.base)
    )
