"""Configurations -> trials: their identity, what they need first, and the grid of a suite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backbone.contract import ExperimentConfig, Requirement
from backbone.errors import UserError
from backbone.registry import Registry
from benchmarks.config import changed, full
from benchmarks.layout import find_trial, trials_dir
from benchmarks.records import read_json
from benchmarks.schema import schema
from benchmarks.spelling import by_flag


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One unit of work. ``config`` is resolved and plain; ``needs`` are trials of the same plan, by id."""

    id: str
    folder: Path
    experiment: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    paths: Mapping[str, str]
    needs: tuple[str, ...]

    def stored(self) -> dict[str, Any]:
        """What config.json holds."""
        return {
            "experiment": self.experiment,
            "version": self.version,
            "config": dict(self.config),
            "inputs": dict(self.inputs),
        }

    def check(self) -> None:
        """Refuse to mix results: a folder that exists must hold the same resolved configuration.

        Raises:
            UserError: a default or a recipe changed although the experiment's version did not.
        """
        before = by_flag(read_json(self.folder / "config.json").get("config", {}))
        for key, value in by_flag(self.config).items():
            old = before.get(key, value)
            if old != value:
                raise UserError(
                    f"{key} of trial {self.id} must be what its folder was made with; got {value}, was {old} (a "
                    f"default or recipe changed). Raise the version of {self.experiment}, or delete {self.folder}."
                )


def trial_id(experiment: str, version: int, options: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The identity of a trial: 16 hex digits over what its result depends on, whatever the order of keys.

    >>> trial_id("a", 1, {"x": 1, "y": 2}, {}) == trial_id("a", 1, {"y": 2, "x": 1}, {})
    True
    """
    content = {"experiment": experiment, "version": version, "options": options, "inputs": inputs}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Planner:
    """Collects trials in an order in which every trial comes after those it needs; equal ones are one."""

    registry: Registry
    out: Path
    trials: dict[str, Trial] = field(default_factory=dict)

    def add(self, experiment: str, config: ExperimentConfig) -> Trial:
        """Plan a trial and everything that it requires.

        Raises:
            UserError: a required trial is unknown or unfinished, or the folder holds another configuration.
        """
        inputs: dict[str, str] = {}
        paths: dict[str, str] = {}
        needs: list[str] = []
        wanted = config.resolved().requires()
        for role, (identity, folder) in self._existing(config, wanted).items():
            inputs[role], paths[role] = identity, str(folder)
            config = replace(config, **dict.fromkeys(_naming(config, wanted[role]), identity))
        for role, requirement in wanted.items():
            if requirement.experiment is not None and requirement.config is not None:
                needed = self.add(requirement.experiment, requirement.config)
                inputs[role], paths[role] = needed.id, str(needed.folder)
                needs.append(needed.id)
        identity = trial_id(experiment, config.version, changed(self.registry, config), inputs)
        trial = Trial(
            id=identity,
            folder=trials_dir(self.out) / identity,
            experiment=experiment,
            version=config.version,
            config=full(self.registry, config.resolved()),
            inputs=inputs,
            paths=paths,
            needs=tuple(needs),
        )
        trial.check()
        return self.trials.setdefault(identity, trial)

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
