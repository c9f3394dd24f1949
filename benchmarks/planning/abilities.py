"""Whether what a configuration names goes together, as far as is known without making it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engram.backbone.contract import MADE_BY, NOTHING, Ability, Asks, Entry, ExperimentConfig, Inputs
from engram.backbone.errors import must
from engram.backbone.objectives.asking import asked
from engram.backbone.options.inherited import made_from
from engram.backbone.options.schema import Option, schema
from engram.backbone.registry import Registry


def unmet(registry: Registry, config: ExperimentConfig, inputs: Inputs = NOTHING) -> list[str]:
    """One line for every adapter that needs what the network before it is not, for every head of another kind, and for
    everything of network and head that an objective asks for.

    Args:
        registry: knows what entries offer and need.
        config: whole.
        inputs: as `ExperimentConfig.resolve` has them; a head that is not named is that of the trained trial.
    """
    options, found = schema(type(config)), list[str]()
    trained = any(role == "trained" and getattr(config, option.field) for option, role in made_from(type(config)))
    wanted = [(name, asks) for name, asks, _ in _objectives(config, options)]
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
        if offers is not None and not config.uses.get("adapters"):
            found += [line for name, asks in wanted for line in _other_network(registry, name, asks, below, offers)]
    heads = [option for option in options if option.kind == "heads"]
    for option in heads:
        found += _other_head(registry, config, option)
    for name, asks, option in _objectives(config, options):
        found += [line for head in heads for line in _untrained(registry, config, inputs, head, option, name, asks)]
    return found


def _objectives(config: ExperimentConfig, options: Sequence[Option]) -> list[tuple[str, Asks, Option]]:
    """Every objective that options name, with what it asks for."""
    found = list[tuple[str, Asks, Option]]()
    for option in options:
        if option.kind == "objectives" and isinstance(name := getattr(config, option.field), str):
            of_it = next((other for other in options if other.options_of == option.field), None)
            own: Mapping[str, Any] = getattr(config, of_it.field) if of_it else {}
            found.append((name, asked(name, own)[0], option))
    return found


def _other_network(
    registry: Registry, objective: str, asks: Asks, network: str, offers: Sequence[Ability]
) -> list[str]:
    """What an objective wants and no such network makes."""
    missing = [MADE_BY[each] for each in asks.wants if each in MADE_BY and MADE_BY[each] not in offers]
    if not missing:
        return []
    makers = [name for _, name, entry in registry.choices("adapters") if {*missing} <= {*(entry.offers or ())}]
    remedy = f"Use --adapter {' or '.join(makers) or 'of another plugin'}, behind all others."
    got = f"{network}, which makes none that is"
    return [str(must(f"the network for the objective {objective}", " and ".join(missing), got, remedy))]


def _untrained(
    registry: Registry,
    config: ExperimentConfig,
    inputs: Inputs,
    head: Option,
    option: Option,
    objective: str,
    asks: Asks,
) -> list[str]:
    """A head that an objective cannot train, or not as it is meant to be."""
    if head.support:
        return []
    name = getattr(config, head.field) or inputs.get("trained", {}).get(head.field)
    if not isinstance(name, str):
        return []
    entry, what = registry.entry("heads", name), f"the head for the objective {objective}"

    def others(fits: Callable[[Entry], bool]) -> str:
        return f"Use --head {' or '.join(each for _, each, made in registry.choices('heads') if fits(made))}."

    if asks.layer and not entry.layer:
        return [str(must(what, "a linear layer", name, others(lambda made: made.layer)))]
    if "concepts" in asks.wants and not entry.conceptual:
        return [str(must(what, "Conceptual", name, others(lambda made: made.conceptual)))]
    if "given" in asks.wants and entry.given not in asks.columns:
        rule = f"one that tells likelihoods given the column {asks.columns[0]!r}"
        return [str(must(what, rule, name, others(lambda made: made.given in asks.columns)))]
    if entry.given and "given" not in asks.wants and not head.compared:
        rule = f"one that trains {name} by likelihoods given the column {entry.given!r}: else its answers are P(y | x)"
        fits = [each for _, each, made in registry.choices("objectives") if _trains(made.asks, entry.given)]
        remedy = f"Use {option.flag} {' or '.join(fits) or 'of another plugin'}, or another {head.flag}."
        return [str(must(option.flag, rule, objective, remedy))]
    return []


def _trains(asks: Asks, column: str) -> bool:
    """Whether an objective trains heads by likelihoods given a column."""
    return "given" in asks.wants and column in asks.columns


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
