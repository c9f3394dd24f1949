"""Configurations -> trials: their identity, what they need first, and the grid of a suite."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from engram.backbone.contract import ExperimentConfig, Inputs, Requirement
from engram.backbone.errors import UserError, must
from engram.backbone.options.inherited import inherited, made_from
from engram.backbone.options.schema import Option, owners, schema
from engram.backbone.options.spelling import by_flag
from engram.backbone.registry import Registry
from engram.benchmarks.planning.abilities import unmet
from engram.benchmarks.planning.alike import Alike, Common, Origin, seedless
from engram.benchmarks.planning.config import (
    changed,
    experiment_config,
    full,
    used,
    without_defaults,
)
from engram.benchmarks.records.contents import finished, still_holds
from engram.benchmarks.records.identity import DataSet, DataSets
from engram.benchmarks.records.layout import trials_dir
from engram.benchmarks.records.memory import Memory, memory_of
from engram.benchmarks.records.trials import Record, find_trial
from engram.benchmarks.saying import say

REGISTERED = "models:/"
"""How addresses of MLflow's model registry begin."""
_PLAIN = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)
"""Made once: `json.dumps` makes one for every text."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One unit of work. ``config`` is resolved and plain; ``needs`` are trials of the same plan, by id.

    ``data`` are sha256 of the data sets that are known by their files, None where these are not there: then nobody
    knows the trial's id yet. ``contents`` are sha256 of what those of its ``inputs`` hold that are done already.
    """

    id: str
    folder: Path
    experiment: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    paths: Mapping[str, str]
    needs: tuple[str, ...]
    data: Mapping[str, str | None] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether its id is known."""
        return None not in self.data.values()

    def stored(self) -> dict[str, Any]:
        """What config.json holds."""
        return {
            "experiment": self.experiment,
            "version": self.version,
            "config": dict(self.config),
            "inputs": dict(self.inputs),
            "data": dict(self.data),
            "contents": dict(self.contents),
        }

    def check(self, memory: Memory | None = None) -> None:
        """Refuse to mix results: a folder that exists must hold the same resolved configuration.

        Raises:
            UserError: a default or a recipe changed although the experiment's version did not.
        """
        if not os.path.lexists(f"{self.folder}/config.json"):
            return
        record = Record(self.folder, memory=memory)
        if record.about.get("config") == self.config:
            return
        before, places = record.config, {*record.data, *self.data}
        for key, value in by_flag(self.config).items():
            old = before.get(key, value)
            moved = isinstance(old, str) and isinstance(value, str) and {old, value} <= places
            if old != value and not moved:  # the same id says that the same data lie at both places
                raise UserError(
                    f"{key} of trial {self.id} must be what its folder was made with; got {value}, was {old} (a "
                    f"default or recipe changed). Raise the version of {self.experiment}, or delete {self.folder}."
                )


def trial_id(
    experiment: str, version: int, options: Mapping[str, Any], inputs: Mapping[str, str], **more: Mapping[str, Any]
) -> str:
    """The identity of a trial: 16 hex digits over what its result depends on, whatever the order of keys.

    >>> trial_id("a", 1, {"x": 1, "y": 2}, {}) == trial_id("a", 1, {"y": 2, "x": 1}, {}, data={})
    True
    """
    content = {"experiment": experiment, "version": version, "options": options, "inputs": inputs}
    content |= {key: values for key, values in more.items() if values}
    return hashlib.sha256(_PLAIN.encode(content).encode()).hexdigest()[:16]


@cache
def _named_sets(cls: type) -> tuple[tuple[Option, str | None], ...]:
    """The options that name data sets, each with the field that has the options of such a set."""
    fields = {owner.field: of_it for of_it, owner in owners(cls).items()}
    return tuple((option, fields.get(option.field)) for option in schema(cls) if option.kind == "datasets")


@dataclass
class Planner:
    """Collects trials in an order in which every trial comes after those it needs; equal ones are one."""

    registry: Registry
    out: Path
    sets: DataSets
    registered: Callable[[str, str], Path] | None = None
    """Finds the trial's folder behind a registered model (``models:/...``), given what names it."""
    trials: dict[str, Trial] = field(default_factory=dict)
    _origins: dict[str, Origin] = field(default_factory=dict)
    _inherited: dict[tuple[type, str], dict[str, Any]] = field(default_factory=dict)
    _problems: Alike[tuple[str, ...]] = field(default_factory=Alike)
    _common: Alike[Common] = field(default_factory=Alike)
    _folder: Path = field(init=False)
    memory: Memory = field(init=False)
    """What is known of finished trials in ``out``."""

    def __post_init__(self) -> None:
        self.memory = memory_of(self.out)
        self._folder = trials_dir(self.out)

    def add(self, experiment: str, given: Mapping[str, Any]) -> Trial:
        """Plan a trial, and everything that it requires, from checked values by field (`Checker.check`).

        Raises:
            UserError: values that do not go together, one line each; a trial that it is to be made from is unknown or
                unfinished; or the folder holds another configuration.
        """
        cls = experiment_config(self.registry, experiment)
        given = {**given, **{option.field: found.where for option, found in self._data_sets(cls, given)}}
        origins = self._made_from(cls, given)
        given |= {option.field: origins[role].id for option, role in made_from(cls) if role in origins}
        known = {role: self._values(cls, origin) for role, origin in origins.items()}
        config = without_defaults(self.registry, cls.resolve(given, known))
        alike = seedless(config, given, origins)
        if problems := self._problems.get(alike, lambda: self._wrong(config, known)):
            raise UserError("\n".join(problems))
        return self._plan(experiment, config, origins, given, alike)

    def _wrong(self, config: ExperimentConfig, known: Inputs) -> tuple[str, ...]:
        """Why there can be no such trial, a line for each reason, whatever its seed."""
        return (*config.problems(), *unmet(self.registry, config, known), *self._of_data(config, known))

    def _plan(
        self,
        experiment: str,
        config: ExperimentConfig,
        origins: Mapping[str, Origin],
        given: Mapping[str, Any],
        alike: str,
    ) -> Trial:
        """Plan a trial whose configuration is whole; ``given`` are the options that somebody chose."""
        common = self._common.get(alike, lambda: self._without_seed(config, origins, given))
        config = replace(config, **common.moved) if common.moved else config
        inputs = {role: origin.id for role, origin in origins.items()}
        paths = {role: str(origin.folder) for role, origin in origins.items()}
        needs = [origin.id for origin in origins.values() if origin.content is None]
        for role, requirement in config.requires().items() if common.requires else ():
            needed = self._required(requirement)
            inputs[role], paths[role] = needed.id, str(needed.folder)
            needs.append(needed.id)
        own = {} if config.seed == type(config).seed else {"seed": config.seed}
        identity = trial_id(experiment, config.version, {**common.options, **own}, inputs, **common.more)
        if identity in self.trials:
            return self.trials[identity]
        trial = Trial(
            id=identity,
            folder=self._folder / identity,
            experiment=experiment,
            version=config.version,
            config={**common.values, "seed": config.seed},
            inputs=inputs,
            paths=paths,
            needs=tuple(needs),
            data=common.data,
            contents=common.more["contents"],
        )
        trial.check(self.memory)
        self.trials[identity] = trial
        return trial

    def _without_seed(
        self, config: ExperimentConfig, origins: Mapping[str, Origin], given: Mapping[str, Any]
    ) -> Common:
        """What `_plan` says of a trial that its seed has no part in."""
        registry = self.registry
        found = self._data_sets(type(config), vars(config))
        moved = {option.field: each.where for option, each in found if getattr(config, option.field) != each.where}
        config = replace(config, **moved) if moved else config
        data: dict[str, str | None] = {each.where: each.sha256 for _, each in found}
        taken = self._taken_over(config, origins, given, data)
        options = {key: value for key, value in changed(registry, config).items() if key not in {*taken, "seed"}}
        options |= {option.key: each.name for option, each in found if option.key in options}
        versions = {
            f"{kind} {registry.canonical(kind, name).partition(':')[0]}": registry.entry(kind, name).version
            for kind, name in used(registry, config)
        }
        contents = {role: origin.content for role, origin in origins.items() if origin.content is not None}
        kept = {option.key: each.sha256 for option, each in found if option.key not in taken}
        return Common(
            moved=moved,
            data=data,
            values=full(registry, config),
            options=options,
            more={"data": kept, "contents": contents, "versions": versions},
            requires=bool(config.requires()),
        )

    def _of_data(self, config: ExperimentConfig, inputs: Inputs) -> list[str]:
        """What the data show that a trial is to work with, as far as anything is known of them."""
        for option, of_it in _named_sets(type(config)):
            if of_it is not None:
                held = vars(config) if getattr(config, option.field) is not None else inputs.get("trained", {})
                name, given = held.get(option.field), held.get(of_it, {})
                known = self.sets.known(name, given) if isinstance(name, str) else None
                return [] if known is None else config.data_problems(known)
        return []

    def _required(self, requirement: Requirement) -> Trial:
        """Plan what another trial requires, after what it is made from itself."""
        cls = type(requirement.config)
        before = {role: self._required(each).id for role, each in requirement.after.items()}
        named = {option.field: before[role] for option, role in made_from(cls) if role in before}
        config = replace(requirement.config, **named)
        origins = self._made_from(cls, vars(config))
        # known by what they are, done or not: the same command again, with some of them done, plans the same trials
        origins |= {role: replace(origins[role], content=None) for role in before}
        given = vars(config)
        return self._plan(requirement.experiment, config, origins, given, seedless(config, given, origins))

    def _data_sets(self, cls: type, values: Mapping[str, Any]) -> list[tuple[Option, DataSet]]:
        """The data sets among values that are known by their files, each with the option that names it."""
        found: list[tuple[Option, DataSet]] = []
        for option, of_it in _named_sets(cls):
            name = values.get(option.field)
            own = {} if of_it is None else values.get(of_it, {})
            if isinstance(name, str) and (each := self.sets.find(name, own)) is not None:
                found.append((option, each))
        return found

    def _taken_over(
        self,
        config: ExperimentConfig,
        origins: Mapping[str, Origin],
        given: Mapping[str, Any],
        data: dict[str, str | None],
    ) -> set[str]:
        """The options, by key, whose data sets are those of a trial that this one is made from; adds them to ``data``.

        They are part of its identity with that trial.
        """
        found: set[str] = set()
        for option, _ in _named_sets(type(config)):
            name: str | None = getattr(config, option.field)
            for origin in origins.values():
                if name is None or (
                    name in origin.data and (option.field not in given or data.get(name) == origin.data[name])
                ):
                    data |= self._same_data(origin)
                    found.add(option.key)
        return found

    def _same_data(self, origin: Origin) -> Mapping[str, str | None]:
        """The data of a trial, which another one is to work on.

        Raises:
            UserError: others lie in their place.
        """
        for where, sha256 in origin.data.items():
            now = self.sets.find(where, {})
            if now is not None and now.sha256 not in (sha256, None):
                rule = f"the one trial {origin.id} was made with"
                raise must(f"dataset {where}", rule, "other files", "Restore it, or train again.")
        return origin.data

    def _made_from(self, cls: type, values: Mapping[str, Any]) -> dict[str, Origin]:
        """The trials that options name, by their role: done, or planned before.

        Raises:
            UserError: one line for each that is unknown or unfinished.
        """
        found: dict[str, Origin] = {}
        said: dict[str, list[str]] = {}
        for option, _ in made_from(cls):
            if values.get(option.field) is not None:
                said.setdefault(str(values[option.field]), []).append(option.flag)
        problems: list[str] = []
        for option, role in made_from(cls):
            text = values.get(option.field)
            if text is None:
                continue
            try:
                found[role] = self._origin(str(text), " and ".join(said[str(text)]))
            except UserError as error:
                problems.append(str(error))
        if problems:
            raise UserError("\n".join(dict.fromkeys(problems)))
        return found

    def _origin(self, text: str, what: str) -> Origin:
        if text in self._origins:
            return self._origins[text]
        whole = self.trials.get(text)
        others = self.trials.values() if whole is None else (whole,)
        planned = [trial for trial in others if text and trial.id.startswith(text)]
        if len(planned) == 1 and Record(planned[0].folder).status != "done":
            (trial,) = planned
            return Origin(
                id=trial.id,
                folder=trial.folder,
                experiment=trial.experiment,
                config=trial.config,
                data=trial.data,
                content=None,
            )
        place = self.registered(text, what) if self.registered and text.startswith(REGISTERED) else text
        identity, folder = find_trial(self.out, str(place), what)
        record = Record(folder)
        content = finished(folder, self.sets.contents)
        if not still_holds(folder, record.result.get("content", content), self.sets.contents):
            told = (
                f"{folder} is not trial {record.result.get('trial')} as it was finished: its files were changed since"
            )
            say(f"engram: {told}. What is made from it counts as made from another trial.")
        trained = record.origin.about.get("config", {})
        found = Origin(
            id=identity,
            folder=folder,
            experiment=record.experiment,
            config=trained,
            data=record.data,
            content=content,
        )
        self._origins |= {text: found, identity: found}
        return found

    def _values(self, cls: type, origin: Origin) -> dict[str, Any]:
        if (cls, origin.id) not in self._inherited:
            self._inherited[cls, origin.id] = inherited(self.registry, cls, origin.config, origin.experiment)
        return self._inherited[cls, origin.id]
