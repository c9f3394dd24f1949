"""A whole configuration -> plain values, and those of them that are no default's, and TOML again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from engram.backbone.contract import ExperimentConfig, Kind
from engram.backbone.options.named import named_schema, things
from engram.backbone.options.schema import Option, owners, schema
from engram.backbone.options.spelling import spell
from engram.backbone.options.values import plain
from engram.backbone.registry import Registry

C = TypeVar("C", bound=ExperimentConfig)


def experiment_config(registry: Registry, experiment: str) -> type[ExperimentConfig]:
    """The configuration class of an experiment.

    Raises:
        UserError: no such experiment.
    """
    cls = registry.options("experiments", experiment)
    return cast("type[ExperimentConfig]", cls or ExperimentConfig)


def named(registry: Registry, config: ExperimentConfig, option: Option, *, changed: bool) -> dict[str, Any]:
    """The options of a registered thing with its defaults, or (``changed``) only those that differ from them."""
    given = getattr(config, option.field)
    known = _known(registry, config, option)
    if known is None:
        return dict(given)
    held = [sub for sub in known if sub.field in given] if changed else known
    values = {sub.key: (sub, plain(given.get(sub.field, sub.default))) for sub in held}
    return {key: value for key, (sub, value) in values.items() if not changed or value != plain(sub.default)}


def _known(registry: Registry, config: ExperimentConfig, option: Option) -> tuple[Option, ...] | None:
    owner = owners(type(config))[option.field]
    return named_schema(registry, owner, getattr(config, owner.field))


def full(registry: Registry, config: ExperimentConfig) -> dict[str, Any]:
    """Every value of a configuration by TOML key, the options of named things included, as JSON has them."""
    return {
        option.key: named(registry, config, option, changed=False)
        if option.options_of
        else plain(getattr(config, option.field))
        for option in schema(type(config))
    }


def changed(registry: Registry, config: ExperimentConfig) -> dict[str, Any]:
    """The values of a configuration that are not their fields' defaults, by TOML key."""
    found: dict[str, Any] = {}
    for option in schema(type(config)):
        value = getattr(config, option.field)
        if option.options_of:
            if value and (values := named(registry, config, option, changed=True)):
                found[option.key] = values
        elif value != option.default:
            found[option.key] = plain(value)
    return found


def every_value(registry: Registry, config: ExperimentConfig) -> Iterator[tuple[Option, Any]]:
    """Every option of a configuration with its value, those of named things included."""
    for option in schema(type(config)):
        value = getattr(config, option.field)
        if option.options_of is None:
            yield option, value
        for sub in (_known(registry, config, option) or ()) if option.options_of is not None else ():
            yield sub, value.get(sub.field, sub.default)


def without_defaults(registry: Registry, config: C) -> C:
    """The same configuration; options of named things that were spelled out at their defaults are left out."""
    slim: dict[str, Any] = {}
    for option in schema(type(config)):
        given = getattr(config, option.field) if option.options_of else None
        if given and (known := _known(registry, config, option)) is not None:
            default = {sub.field: plain(sub.default) for sub in known}
            kept = {key: value for key, value in given.items() if key not in default or plain(value) != default[key]}
            if len(kept) < len(given):
                slim[option.field] = kept
    return replace(config, **slim) if slim else config


def written(cls: type[ExperimentConfig], given: Mapping[str, Any]) -> list[str]:
    """The names of the options among values by field, those of named things included."""
    found: list[str] = []
    for option in schema(cls):
        if option.field in given:
            inside = given[option.field] if option.options_of else ()
            found += [f"{option.name}.{spell(key)}" for key in inside] if option.options_of else [option.name]
    return found


def used(registry: Registry, config: ExperimentConfig) -> Iterator[tuple[Kind, str]]:
    """(kind, name) of every registered thing that a trial works with, but for the experiment."""
    for option in schema(type(config)):
        if option.kind is not None:
            for name in things(getattr(config, option.field)):
                yield from wrapped(registry, option.kind, name)
    for kind, names in config.uses.items():
        for name in names:
            yield kind, name


def wrapped(registry: Registry, kind: Kind, name: str) -> Iterator[tuple[Kind, str]]:
    """(kind, name) of a thing, and of what it is around."""
    yield kind, name
    while (inner := registry.wrapped(kind, name)) is not None:
        yield kind, (name := inner)


def to_toml(values: Mapping[str, Any]) -> str:
    """Plain values as TOML; None is left out, nested mappings become tables.

    >>> print(to_toml({"lr": 0.5, "backbone_options": {"width": 2.0}}), end="")
    lr = 0.5
    <BLANKLINE>
    [backbone_options]
    width = 2.0
    """
    return "\n".join(_toml_lines(values)) + "\n"


def _toml_lines(values: Mapping[str, Any], where: str = "") -> Iterator[str]:
    yield from (f"{_key(key)} = {_literal(value)}" for key, value in values.items() if _is_leaf(value))
    for key, table in values.items():
        if isinstance(table, Mapping) and table:
            yield from ("", f"[{where}{_key(key)}]")
            yield from _toml_lines(table, f"{where}{_key(key)}.")


def _key(name: str) -> str:
    return json.dumps(name) if "." in name else name


def _is_leaf(value: Any) -> bool:
    return value is not None and not isinstance(value, Mapping)


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_literal(item) for item in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    # JSON's strings, numbers and booleans are TOML's too, but TOML wants DEL escaped as well
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
