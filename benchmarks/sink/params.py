"""Which options of a trial are worth a column in MLflow: those that say what it is, and those somebody changed."""

from __future__ import annotations

from typing import Any

from backbone.contract import Scalar
from backbone.errors import UserError
from backbone.registry import Registry
from benchmarks.config import full
from benchmarks.records import Record
from benchmarks.schema import schema
from benchmarks.spelling import by_flag

ALWAYS = ("experiment", "dataset", "backbone", "seed")


def params_of(record: Record) -> dict[str, Scalar]:
    """The trial's experiment, network, data and seed, what its sweep varies, and every option off its default."""
    defaults = default_values(record)
    params: dict[str, Scalar] = {"experiment": record.experiment}
    for name, value in record.config.items():
        wanted = name in ALWAYS or name in record.options or name not in defaults or defaults[name] != value
        if wanted and value is not None:
            params[name] = value
    return params


def default_values(record: Record) -> dict[str, Any]:
    """What the trial's options would be by default with its network and data; empty when its plugin is not here."""
    registry = Registry.discover()
    try:
        cls: Any = registry.options("experiments", record.experiment)
        options = schema(cls)
        named = {option.field: record.config.get(option.name) for option in options if option.kind}
        given = {field: value for field, value in named.items() if isinstance(value, str)}
        return by_flag(full(registry, cls(**given).resolved()))
    except (UserError, ImportError, TypeError, AttributeError, ValueError):
        return {}
