"""Configurations -> trials: their identity, what they need first, and the grid of a suite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engram.backbone.contract import ExperimentConfig, Requirement
from engram.backbone.errors import UserError, must
from engram.backbone.registry import Registry
from engram.benchmarks.commands.command import say
from engram.benchmarks.planning.config import changed, full
from engram.benchmarks.planning.schema import Option, schema
from engram.benchmarks.records.contents import finished
from engram.benchmarks.records.identity import DataSet, DataSets
from engram.benchmarks.records.layout import find_trial, trials_dir
from engram.benchmarks.records.trials import Record
from engram.benchmarks.spelling import by_flag


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

    def check(self) -> None:
        """Refuse to mix results: a folder that exists must hold the same resolved configuration.

        Raises:
            UserError: a default or a recipe changed although the experiment's version did not.
        """
        record = Record(self.folder)
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
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Planner:
    """Collects trials in an order in which every trial comes after those it needs; equal ones are one."""

    registry: Registry
    out: Path
    sets: DataSets
    trials: dict[str, Trial] = field(default_factory=dict)
    _held: dict[Path, str] = field(default_factory=dict)

    def add(self, experiment: str, config: ExperimentConfig) -> Trial:
        """Plan a trial and everything that it requires.

        Raises:
            UserError: a required trial is unknown or unfinished, or the folder holds another configuration.
        """
        inputs: dict[str, str] = {}
        paths: dict[str, str] = {}
        contents: dict[str, str] = {}
        needs: list[str] = []
        found = self._data_sets(config)
        config = replace(config, **{option.field: each.where for option, each in found})
        data: dict[str, str | None] = {each.where: each.sha256 for _, each in found}
        wanted = config.resolved().requires()
        for role, (identity, folder) in self._existing(config, wanted).items():
            inputs[role], paths[role] = identity, str(folder)
            contents[role] = self._held_by(folder)
            data |= self._same_data(identity, folder) if wanted[role].same_data else {}
            config = replace(config, **dict.fromkeys(_naming(config, wanted[role]), identity))
        for role, requirement in wanted.items():
            if requirement.experiment is not None and requirement.config is not None:
                needed = self.add(requirement.experiment, requirement.config)
                inputs[role], paths[role] = needed.id, str(needed.folder)
                needs.append(needed.id)
        options = changed(self.registry, config)
        options |= {option.key: each.name for option, each in found if option.key in options}
        bytes_of = {option.key: each.sha256 for option, each in found}
        identity = trial_id(experiment, config.version, options, inputs, data=bytes_of, contents=contents)
        trial = Trial(
            id=identity,
            folder=trials_dir(self.out) / identity,
            experiment=experiment,
            version=config.version,
            config=full(self.registry, config.resolved()),
            inputs=inputs,
            paths=paths,
            needs=tuple(needs),
            data=data,
            contents=contents,
        )
        trial.check()
        return self.trials.setdefault(identity, trial)

    def _data_sets(self, config: ExperimentConfig) -> list[tuple[Option, DataSet]]:
        """The data sets that a configuration names and that are known by their files, each with the option."""
        found: list[tuple[Option, DataSet]] = []
        options, resolved = schema(type(config)), config.resolved()
        for option in options:
            name = getattr(resolved, option.field)
            if option.kind == "datasets" and isinstance(name, str):
                own = next(
                    (getattr(resolved, other.field) for other in options if other.options_of == option.field), {}
                )
                if (each := self.sets.find(name, own)) is not None:
                    found.append((option, each))
        return found

    def _held_by(self, folder: Path) -> str:
        """What an existing trial holds; says where that is not what it was finished with."""
        if folder not in self._held:
            self._held[folder] = finished(folder, self.sets.contents)
            result = Record(folder).result
            if result.get("content", self._held[folder]) != self._held[folder]:
                told = f"{folder} is not trial {result.get('trial')} as it was finished: its files were changed since"
                say(f"engram: {told}. What is made from it counts as made from another trial.")
        return self._held[folder]

    def _same_data(self, identity: str, folder: Path) -> dict[str, str | None]:
        """The data of an existing trial, which another one is to work on.

        Raises:
            UserError: others lie in their place.
        """
        data = Record(folder).data
        for where, sha256 in data.items():
            now = self.sets.find(where, {})
            if now is not None and now.sha256 not in (sha256, None):
                rule = f"the one trial {identity} was made with"
                raise must(f"dataset {where}", rule, "other files", "Restore it, or train again.")
        return data

    def _existing(self, config: ExperimentConfig, wanted: Mapping[str, Requirement]) -> dict[str, tuple[str, Path]]:
        """(id, folder) of the existing trials that are required, by role; their ids stand for every way to write them.

        Raises:
            UserError: one line for each that is unknown or unfinished.
        """
        found: dict[str, tuple[str, Path]] = {}
        problems: list[str] = []
        for role, requirement in wanted.items():
            if requirement.trial is None:
                continue
            what = " and ".join(_naming(config, requirement).values()) or f"the trial for {role}"
            try:
                found[role] = find_trial(self.out, requirement.trial, what)
            except UserError as error:
                problems.append(str(error))
        if problems:
            raise UserError("\n".join(dict.fromkeys(problems)))
        return found


def _naming(config: ExperimentConfig, requirement: Requirement) -> dict[str, str]:
    """The options (field -> flag) in which a required trial's id, its beginning or its folder was written."""
    return {
        option.field: option.flag
        for option in schema(type(config))
        if option.kind is None and option.base is str and getattr(config, option.field) == requirement.trial
    }
