"""Whether adapters can be put on the network that a configuration names, as far as that is known without making it."""

from __future__ import annotations

from engram.backbone.contract import ExperimentConfig
from engram.backbone.errors import must
from engram.backbone.options.schema import Option, schema
from engram.backbone.registry import Registry


def unmet(registry: Registry, config: ExperimentConfig) -> list[str]:
    """One line for every adapter that needs what the network before it is not.

    Args:
        registry: knows what entries offer and need.
        config: whole.
    """
    options, found = schema(type(config)), list[str]()
    for backbone in _named(config, options, "backbones"):
        below, offers = backbone, registry.entry("backbones", backbone).offers
        for adapter in _named(config, options, "adapters"):
            entry = registry.entry("adapters", adapter)
            missing = [name for name in entry.needs if offers is not None and name not in offers]
            if missing:
                got = f"{below}, which makes none that is"
                remedy = "Use another --backbone or --adapter, or leave one out."
                found.append(str(must(f"a network for {adapter}", " and ".join(missing), got, remedy)))
            below, offers = adapter, entry.offers
    return found


def _named(config: ExperimentConfig, options: tuple[Option, ...], kind: str) -> list[str]:
    """What the options of one kind name, in their order."""
    given = [getattr(config, option.field) for option in options if option.kind == kind]
    return [name for each in given for name in ((each,) if isinstance(each, str) else each or ())]
