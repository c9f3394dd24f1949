"""Whether adapters and heads can be put on the network of a configuration, as far as is known without making it."""

from __future__ import annotations

from engram.backbone.contract import Entry, ExperimentConfig
from engram.backbone.errors import must
from engram.backbone.options.inherited import made_from
from engram.backbone.options.schema import Option, schema
from engram.backbone.registry import Registry


def unmet(registry: Registry, config: ExperimentConfig) -> list[str]:
    """One line for every adapter that needs what the network before it is not, and for every head of another kind.

    Args:
        registry: knows what entries offer and need.
        config: whole.
    """
    options, found = schema(type(config)), list[str]()
    trained = any(role == "trained" and getattr(config, option.field) for option, role in made_from(type(config)))
    for backbone in _named(config, options, "backbones"):
        below = backbone
        offers = None if trained else registry.entry("backbones", backbone).offers  # a trial's adapters are not known
        for adapter in _named(config, options, "adapters"):
            entry = registry.entry("adapters", adapter)
            missing = [name for name in entry.needs if offers is not None and name not in offers]
            if missing:
                got = f"{below}, which makes none that is"
                remedy = "Use another --backbone or --adapter, or leave one out."
                found.append(str(must(f"a network for {adapter}", " and ".join(missing), got, remedy)))
            below, offers = adapter, entry.offers
    return found + [
        line for option in options if option.kind == "heads" for line in _other_head(registry, config, option)
    ]


def _other_head(registry: Registry, config: ExperimentConfig, option: Option) -> list[str]:
    """A head without a support set where one is needed, or one that cannot do without."""
    name = getattr(config, option.field)
    if name is None:
        return []
    if _fits(registry.entry("heads", name), option):
        return []
    fits = [known for _, known, each in registry.entries("heads") if _fits(each, option)]
    rule = "one that classifies by a support set" if option.support else "one that is trained with fixed classes"
    return [str(must(option.flag, rule, name, f"Use {', '.join(fits) or 'another plugin'}."))]


def _fits(head: Entry, option: Option) -> bool:
    return head.support if option.support else head.fixed and head.trainable


def _named(config: ExperimentConfig, options: tuple[Option, ...], kind: str) -> list[str]:
    """What the options of one kind name, in their order."""
    given = [getattr(config, option.field) for option in options if option.kind == kind]
    return [name for each in given for name in ((each,) if isinstance(each, str) else each or ())]
