"""How trials are called, for people: bars, start lines, plans, ``engram status`` and MLflow's runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engram.backbone.contract import Scalar
from engram.backbone.errors import UserError
from engram.backbone.options.inherited import inherited, made_from, understood
from engram.backbone.options.schema import schema
from engram.backbone.options.spelling import by_flag, spell
from engram.backbone.registry import Registry
from engram.benchmarks.drawing.tables import word
from engram.benchmarks.planning.config import experiment_config, full, written
from engram.benchmarks.records.meaning import is_whole, subject
from engram.benchmarks.records.trials import Record

if TYPE_CHECKING:
    from engram.benchmarks.planning.plan import Trial

_TOLD: dict[str, list[str]] = {}
"""Names that were looked up in this process."""


def words(experiment: str, config: Mapping[str, Any], told: Iterable[str] = ()) -> list[str]:
    """A trial in words: its experiment, data and network, the options ``told`` with their values, and its seed.

    >>> words("backbone.train", {"dataset": "digits", "backbone": "mlp", "epochs": 3, "lr": 0.1, "seed": 2}, ["lr"])
    ['backbone.train', 'digits', 'mlp', 'lr=0.1', 'seed 2']
    """
    kinds = subject(experiment)
    about = [key for key in kinds if config.get(key)] if is_whole(experiment, config) else []
    if config.get("from") and "backbones" not in map(kinds.get, about):
        about = ["from", *about]  # its network is that trial's
    said = [word(config[key]) for key in about]
    others = [key for key in map(spell, told) if key not in (*about, "seed") and key in config]
    seed = [] if config.get("seed") is None else [f"seed {config['seed']}"]
    return [experiment, *said, *(f"{key}={spelled(config[key])}" for key in others), *seed]


def spelled(value: Any) -> str:
    """A value as one writes it on the command line, where None is ``none``."""
    return "none" if value is None else word(value)


def labels(trials: Sequence[Trial], axes: Iterable[str]) -> dict[str, str]:
    """Trial -> what to call it, the values of the options that its plan varies included."""
    return {trial.id: " ".join(words(trial.experiment, by_flag(trial.config), axes)) for trial in trials}


def short_words(experiment: str, config: Mapping[str, Any], told: Iterable[str], common: Collection[str]) -> list[str]:
    """As `words`, without those in ``common`` that no option in ``told`` says: for places that are narrow.

    >>> config = {"dataset": "digits", "backbone": "mlp", "epochs": 3, "lr": 0.1, "seed": 2}
    >>> short_words("backbone.train", config, ["backbone"], words("backbone.train", config))
    ['mlp', 'seed 2']
    """
    axes = {key: config[key] for key in map(spell, told) if key in config}
    own = {f"seed {config.get('seed')}", *(word(value) for value in axes.values())}
    own |= {f"{key}={spelled(value)}" for key, value in axes.items()}
    said = words(experiment, config, told)
    return [each for each in said if each in own or each not in common] or said


def record_words(record: Record) -> list[str]:
    """As `words`, for a trial that was found: what its sweep varies, or else every option off its default."""
    return words(record.experiment, record.config, record.options or _told(record))


def _told(record: Record) -> list[str]:
    """The names of options off their defaults, found once for trials that differ in their seed alone."""
    held = {**record.about, "config": {**record.about.get("config", {}), "seed": None}}
    key = json.dumps([str(record.folder.parent), held], sort_keys=True)
    if key not in _TOLD:
        _TOLD[key] = list(off_default(record) or {})
    return _TOLD[key]


def off_default(record: Record) -> dict[str, Scalar] | None:
    """The options to give for the same trial: what it is made from, and what differs from what follows from that.

    None where its experiment is gone or has other options now, and where its config.json is not there or damaged.
    """
    if not record.about:
        return None
    registry = Registry.discover()
    try:
        cls = experiment_config(registry, record.experiment)
        given = {option.field: record.about["config"].get(option.key) for option, _ in made_from(cls)}
        given = {field: value for field, value in given.items() if value is not None}
        roles = [role for option, role in made_from(cls) if option.field in given]
        inputs = {role: _input(registry, cls, record, role) for role in roles}
        config = cls(**understood(registry, cls, record.about["config"]), **given)
        for option in schema(cls):
            if option.kind is not None and getattr(config, option.field) != getattr(
                cls.resolve(given, inputs), option.field
            ):
                given[option.field] = getattr(config, option.field)
        defaults = by_flag(full(registry, cls.resolve(given, inputs)))
    except (UserError, ImportError, TypeError, AttributeError, ValueError):
        return None
    told = set(written(cls, given))
    return {
        key: value
        for key, value in record.config.items()
        if key in told or (value is not None and defaults.get(key) != value)
    }


def _input(registry: Registry, cls: type, record: Record, role: str) -> dict[str, Any]:
    """What is known of a trial that a record's is made from; from its own configuration, which holds what that fixed,
    where it is not there.
    """
    found = Record(record.folder.parent / str(record.about.get("inputs", {}).get(role, "")))
    held = found.origin.about.get("config") or record.about["config"]
    return inherited(registry, cls, held, found.experiment)
