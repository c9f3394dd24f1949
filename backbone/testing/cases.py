"""Which checks there are for a plugin: of each thing it offers, and of every pair that one of its things is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, permutations, product
from typing import Any

from torch import nn

from engram.backbone.contract import KINDS, Entry, Kind, Named
from engram.backbone.data.load import open_source
from engram.backbone.nets.making import LINEAR, adapt, build_head
from engram.backbone.objectives.asking import asked
from engram.backbone.registry import Registry
from engram.backbone.testing import crossing, datasets, entries, experiments, heads, networks, objectives
from engram.backbone.testing.case import Case, Refusal, require
from engram.backbone.testing.samples import NETWORKS, THIN, Things
from engram.backbone.testing.workshop import Workshop

PLAIN = "cross-entropy"
FROM = "--from"
"""Stands among the things of a case whose experiment is given a trained network."""


def cases(
    *plugins: str,
    refusals: Sequence[Refusal] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    data: Mapping[str, str | tuple[str, Mapping[str, Any]]] | None = None,
) -> list[Case]:
    """The checks of one plugin, or of several together.

    Args:
        plugins: their names, which are those of their entry points.
        refusals: what is refused on purpose, of two that concern a case the first; what is refused besides, and what
            is not, is a failure.
        options: of things and of experiments, by name and by field: what makes them small, where the kit cannot know.
        data: by the name of an objective, a data set with the columns that it needs, or such a set and its options,
            where these are others than ``group`` and ``environment``.

    Raises:
        ValueError: a refusal is of things that never come together, or the plugin is not installed.
    """
    registry = Registry.discover()
    for plugin in plugins:
        if plugin not in registry.plugins:
            why = registry.broken.get(plugin, f"known: {', '.join(registry.plugins)}")
            raise ValueError(f"plugin {plugin!r} must be installed, and load ({why})")
    shop = Workshop(registry, options or {}, data or {})
    found = list(_Maker(shop, plugins, refusals).all())
    for refusal in refusals:
        if not any(refusal.concerns(case.things) for case in found):
            raise ValueError(f"no case has all of {', '.join(refusal.things)}, which are declared to be refused")
    return found


@dataclass
class _Maker:
    """Makes the cases of some plugins."""

    shop: Workshop
    plugins: Sequence[str]
    refusals: Sequence[Refusal]

    def all(self) -> Iterator[Case]:
        yield from self._without_running()
        yield from self._alone()
        yield from self._in_pairs()
        yield from self._in_experiments()

    def case(self, what: str, things: Sequence[str], check: Callable[[], object], known: str | None = None) -> Case:
        """A case that is refused where it is declared so, or where ``known`` says why."""
        declared = next((each.reason for each in self.refusals if each.concerns(tuple(things))), None)
        return Case(what, tuple(things), check, declared or known)

    def mine(self, kind: Kind) -> list[tuple[str, Entry]]:
        """What the plugins have of a kind, as far as options alone can name it."""
        return [
            (name, entry)
            for plugin, name, entry in self.shop.registry.entries(kind)
            if plugin in self.plugins and not entry.instead and not entry.takes_path
        ]

    def own(self) -> set[str]:
        """The names of all that."""
        return {name for kind in KINDS for name, _ in self.mine(kind)}

    def offered(self, kind: Kind) -> list[str]:
        """What all plugins have of a kind."""
        offered = self.shop.registry.entries(kind)
        return [name for _, name, entry in offered if not entry.instead and not entry.takes_path]

    def trainable(self, kind: Kind) -> list[str]:
        """What all plugins have of a kind, without heads that are not trained with fixed classes."""
        held = self.shop.registry.entries(kind)
        able = {name for _, name, entry in held if entry.fixed and entry.trainable}
        return [name for name in self.offered(kind) if name in able]

    def fitting(self, experiment: str, kind: Kind) -> list[str]:
        """What an option of an experiment takes of a kind: of heads those with a support set, or with fixed classes."""
        option = self.shop.naming(experiment, kind)
        if kind != "heads" or option is None or not option.support:
            return self.trainable(kind)
        return [name for name in self.offered(kind) if self.shop.registry.entry(kind, name).support]

    def networks(self) -> list[Named]:
        """The two that everything is tried on."""
        return [self.network(name) for name in NETWORKS]

    def network(self, name: str) -> Named:
        """A backbone with the options that it is tried with."""
        cls = self.shop.registry.options("backbones", name)
        thin = {key: value for key, value in THIN.items() if key in getattr(cls, "__dataclass_fields__", {})}
        return self.shop.named("backbones", name, NETWORKS.get(name, thin))

    def things(self, network: Named, *adapters: str, head: str | None = None) -> Things:
        """What a classifier is made of."""
        registry = self.shop.registry
        made_by = registry.entry("adapters", adapters[-1]) if adapters else registry.entry("backbones", network.name)
        named = tuple(self.shop.named("adapters", name) for name in adapters)
        return Things(network, made_by, named, LINEAR if head is None else self.shop.named("heads", head))

    def lacking(self, network: str, *adapters: str) -> str | None:
        """The name of what an adapter needs and the one before it is not."""
        registry = self.shop.registry
        offers = registry.entry("backbones", network).offers
        for name in adapters:
            entry = registry.entry("adapters", name)
            if missing := [need for need in entry.needs if offers is not None and need not in offers]:
                return missing[0]
            offers = entry.offers
        return None

    def unmet(self, network: Named, kind: Kind, name: str, experiment: str) -> str | None:
        """As `lacking`, of a thing of any kind and what an experiment always uses."""
        used = self.shop.uses(experiment, "adapters")
        return self.lacking(network.name, *((name, *used) if kind == "adapters" else used))

    def _without_running(self) -> Iterator[Case]:
        for name in self.plugins:
            plugin = self.shop.registry.plugins[name]
            yield self.case("imports no torch before it runs", [name], partial(entries.check_light, plugin))
            for kind in KINDS:
                for thing, entry in getattr(plugin, kind).items():
                    yield self.case("entry", [thing], partial(entries.check_entry, entry))
            for word, command in plugin.commands.items():
                yield self.case("command", [word], partial(entries.check_command, command))
            for row, where in plugin.checks.items():
                yield self.case("row of doctor", [row], partial(entries.check_doctor, where))
        for name, _ in self.mine("experiments"):
            config = self.shop.registry.options("experiments", name)
            if config is not None:
                yield self.case("metrics that it declares", [name], partial(entries.check_declared, config))

    def _alone(self) -> Iterator[Case]:
        shop = self.shop
        for name, _ in self.mine("backbones"):
            things = self.things(self.network(name))
            yield self.case("network", [name], partial(networks.check_network, things))
        for name, entry in self.mine("adapters"):
            adapter = shop.named("adapters", name)
            make = partial(_adapted, adapter)
            needs = partial(networks.refuses_what_it_cannot_take, entry, make)
            yield self.case("refuses by name what it cannot take", [name], needs)
            for network in self.networks():
                both, lacking = [name, network.name], self.lacking(network.name, name)
                kept = partial(networks.leaves_what_it_is_given, self.things(network), make)
                yield self.case("leaves what it is given as it is", both, kept, lacking)
                check = partial(networks.check_network, self.things(network, name))
                yield self.case("network", both, check, lacking)
        for name, entry in self.mine("heads"):
            head = shop.named("heads", name)
            yield self.case("head", [name], partial(heads.check_head, entry, partial(build_head, head)))
        for name, _ in self.mine("objectives"):
            yield self.case("objective", [name], partial(_check_objective, shop, name))
        for name, _ in self.mine("datasets"):
            own = shop.options.get(name, {})
            reading = partial(open_source, name, own, root=shop.folder, download=False)
            known = partial(shop.registry.known, name, own, root=shop.folder)
            yield self.case("data set", [name], partial(datasets.check_dataset, reading, known))

    def _in_pairs(self) -> Iterator[Case]:
        """Adapters, heads and objectives two at a time, each pair on both networks; two adapters in either order."""
        own = self.own()
        for network in self.networks():
            for kinds in combinations(("adapters", "heads", "objectives"), 2):
                for pair in product(*map(self.trainable, kinds)):
                    if own & {*pair}:
                        chosen: Mapping[str, str] = dict(zip(kinds, pair, strict=True))
                        yield self._together(network, pair, chosen)
            for below, above in permutations(self.offered("adapters"), 2):
                if own & {below, above}:
                    yield self._together(network, (above, below), {}, (below, above))

    def _together(
        self,
        network: Named,
        names: tuple[str, ...],
        chosen: Mapping[str, str],
        adapters: tuple[str, ...] = (),
    ) -> Case:
        adapters = adapters or ((chosen["adapters"],) if "adapters" in chosen else ())
        things = self.things(network, *adapters, head=chosen.get("heads"))
        objective = self.shop.named("objectives", chosen.get("objectives", PLAIN))
        check = partial(crossing.check_together, self.shop, things, objective)
        known = self.lacking(network.name, *adapters)
        return self.case("trained a step, resumed, saved", [*names, network.name], check, known)

    def _in_experiments(self) -> Iterator[Case]:
        own = self.own()
        for experiment in self.offered("experiments"):
            if experiment in own:
                yield self._run(experiment, [experiment], {})
            if self.shop.naming(experiment, "backbones") is not None:
                yield from (self._network(experiment, name) for name, _ in self.mine("backbones"))
            for kind in ("adapters", "heads", "objectives", "strategies"):
                if self.shop.naming(experiment, kind) is None:
                    continue
                for name in self.fitting(experiment, kind):
                    if {experiment, name} & own:
                        yield from self._option(experiment, kind, name)
            if self.shop.starts_from(experiment) is None:
                continue
            for kind in ("adapters", "heads"):
                for name in self.trainable(kind):
                    if {experiment, name} & own:
                        yield from self._input(experiment, kind, name)

    def _run(self, experiment: str, names: Sequence[str], chosen: Mapping[str, Any], known: str | None = None) -> Case:
        check = partial(experiments.check_experiment, self.shop, experiment, chosen)
        return self.case("started, resumed, finished", names, check, known)

    def _network(self, experiment: str, name: str) -> Case:
        check = partial(experiments.check_run, self.shop, experiment, _as_option(self.network(name)))
        return self.case("run", [name, experiment], check, self.lacking(name, *self.shop.uses(experiment, "adapters")))

    def _option(self, experiment: str, kind: Kind, name: str) -> Iterator[Case]:
        """An experiment that is told to use a thing, on a network that it can be told of."""
        chosen = self.shop.options_for(experiment, kind, name)
        if kind == "objectives":
            chosen |= self.shop.data_for(name)
        told = self.shop.naming(experiment, "backbones") is not None
        once = kind == "strategies" or name not in self.trainable(kind)  # they know networks by weights or features
        both = self.networks()[: 1 if once else None]
        for network in both if told else [None]:
            names, known, more = [name, experiment], None, chosen
            if network is not None:
                names, more = [*names, network.name], {**chosen, **_as_option(network)}
                known = self.unmet(network, kind, name, experiment)
            yield self._run(experiment, names, more, known)

    def _input(self, experiment: str, kind: Kind, name: str) -> Iterator[Case]:
        """An experiment that is given a network that was trained with a thing."""
        for network in self.networks():
            known = self.unmet(network, kind, name, experiment)
            trained = {**self.shop.options_for(experiments.TRAIN, kind, name), **_as_option(network)}
            check = partial(experiments.check_from, self.shop, experiment, trained)
            yield self.case("given a trained network", [name, experiment, network.name, FROM], check, known)


def _as_option(network: Named) -> dict[str, Any]:
    return {"backbone": network.name, "backbone_options": network.options}


def _adapted(adapter: Named, net: nn.Module) -> nn.Module:
    return adapt(net, adapter.name, adapter.options)


def _check_objective(shop: Workshop, name: str) -> None:
    data, chosen = shop.loaded(name), shop.named("objectives", name)
    asks, problems = asked(name, chosen.options)
    require(not problems, "an objective has nothing against its options")
    objectives.check_objective(partial(crossing.made, shop, chosen), asks, data.train, len(data.classes))
