"""Values from flags or TOML -> a validated configuration -> plain values and TOML again.

All errors are found in one go, each one line with its next step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from engram.backbone.contract import ExperimentConfig, Flag
from engram.backbone.errors import UserError, nearest
from engram.backbone.registry import Registry
from engram.benchmarks.planning.abilities import unmet
from engram.benchmarks.planning.schema import Option, from_text, schema
from engram.benchmarks.spelling import by_flag, twice

T = TypeVar("T")

LARGEST = 2**53
"""No whole number beyond it: some readers of JSON keep no larger one exactly, and trackers overflow soon after."""


@dataclass
class Checker:
    """Validates values against dataclasses and gathers every problem.

    ``name`` says how the reader writes the name of an option (``--lr`` or ``lr``); ``next_step`` where to read on.
    """

    registry: Registry
    name: Callable[[str], str]
    next_step: str
    problems: list[str] = field(default_factory=list)

    def build(self, cls: type[T], values: Mapping[str, Any]) -> T | None:
        """An instance of ``cls`` from values by name in any spelling, or None after adding to ``problems``."""
        before = len(self.problems)
        for problem in twice(values):
            self._add(problem)
        own = {option.name: option for option in schema(cls) if option.options_of is None}
        tables = {option.name: option for option in schema(cls) if option.options_of is not None}
        inside: dict[str, dict[str, Any]] = {name: {} for name in tables}
        rest: dict[str, Any] = {}
        for name, value in by_flag(values).items():
            head, dot, tail = name.partition(".")
            if dot and head in tables:
                inside[head][tail] = value
            elif name in (f"{table}-options" for table in tables):
                self._add(f"{self.name(name)} must be a table; got {value}. {self.next_step}")
            else:
                rest[name] = value
        self._unknown(rest, own)
        given = {option.field: self._value(option, name, rest[name]) for name, option in own.items() if name in rest}
        for name, option in tables.items():
            if inside[name]:
                given[option.field] = self._named(option, own[name], given, inside[name])
        return cls(**given) if len(self.problems) == before else None

    def _unknown(self, values: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> None:
        for key in values:
            if key not in known:
                hint = nearest(self.name(prefix + key), [self.name(prefix + name) for name in known])
                self._add(
                    f"option must be one of those offered; got {self.name(prefix + key)}. {hint} {self.next_step}"
                )

    def _value(self, option: Option, name: str, value: Any) -> Any:
        spelled = value == "none" and option.base is not str and "none" not in option.choices
        if option.optional and (value is None or spelled):
            return None
        if value in option.words:
            return value
        converted, why = convert(option, value)
        if why:
            close = nearest(str(value), (*option.choices, *option.words))
            hint = f"{close} " if close.startswith("Did") else ""  # else the rule has named them all
            shown = str(value) if str(value).strip() else repr(value)
            self._add(f"{self.name(name)} must be {why}; got {shown}. {hint}{self.next_step}")
        elif option.kind is not None:
            try:
                if option.many:
                    return tuple(self.registry.chosen(option.kind, item) for item in converted)
                return self.registry.chosen(option.kind, converted)
            except UserError as error:
                self._add(str(error))
        return converted

    def _named(self, option: Option, owner: Option, given: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        """Check the options of a registered thing against the thing's own dataclass."""
        thing = given.get(owner.field, owner.default)
        known = named_schema(self.registry, owner, thing)
        if known is None:
            if thing is None or all(is_known(self.registry, owner, each) for each in things(thing)):
                got = ", ".join(self.name(f"{option.name}.{key}") for key in values)
                self._add(
                    f"{self.name(owner.name)} must be something that has options; got {got} for "
                    f"{', '.join(things(thing)) or None}. Leave it out."
                )
            return {}
        own = {sub.name: sub for sub in known}
        self._unknown(values, own, f"{option.name}.")
        checked = {
            key: self._value(own[key], f"{option.name}.{key}", value) for key, value in values.items() if key in own
        }
        # spelling out a default is the same configuration as leaving it out
        return {own[key].field: value for key, value in checked.items() if plain(value) != plain(own[key].default)}

    def _add(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def finish(self, config: ExperimentConfig | None) -> ExperimentConfig:
        """The configuration itself when neither its values nor their combination is wrong.

        Raises:
            UserError: one line per problem.
        """
        if config is not None and not self.problems:
            try:
                resolved = config.resolved()
                self.problems += [*resolved.problems(), *unmet(self.registry, resolved)]
            except UserError as error:
                self.problems.append(str(error))
        if self.problems or config is None:
            raise UserError("\n".join(self.problems))
        return config


def convert(option: Option, value: Any) -> tuple[Any, str]:
    """(value in the option's type, "") or (anything, the rule that it breaks)."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if isinstance(value, bool) and option.base in (int, float):
        return value, option.rule()
    if option.base is Path and value == "":
        return value, option.rule()  # not the folder one stands in
    if option.many and isinstance(value, str):
        value = [item for item in value.split(",") if item]
    try:
        found = TypeAdapter(from_text(option.type), config=ConfigDict(allow_inf_nan=False)).validate_python(value)
        beyond = any(isinstance(each, int) and abs(each) > LARGEST for each in (found if option.many else (found,)))
        return (value, f"{option.rule()}, not beyond {LARGEST}") if beyond else (found, "")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"]:
            return value, f"{option.rule()} ({first['msg'][0].lower()}{first['msg'][1:]})"
        out_of_range = first["type"] in ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
        return value, option.range() if out_of_range and option.range() else option.rule()


def things(thing: Any) -> tuple[str, ...]:
    """What an option that names one thing, several or none has been given."""
    if thing is None or isinstance(thing, str):
        return () if thing is None else (thing,)
    return tuple(thing)


def is_known(registry: Registry, owner: Option, thing: str) -> bool:
    try:
        registry.entry(owner.kind or "backbones", thing)
    except UserError:
        return False
    return True


def named_options(registry: Registry, owner: Option, thing: Any) -> type | None:
    """The options dataclass of the thing that ``owner`` names; None when it has none or does not exist.

    Of several things it has one field for each, under its name without its plugin, that holds the thing's own.
    """
    found = {
        each.partition(":")[0].rpartition(".")[2]: registry.options(owner.kind, each)
        for each in things(thing)
        if owner.kind is not None and is_known(registry, owner, each)
    }
    classes = {name: cls for name, cls in found.items() if cls is not None}
    if not owner.many or not classes:
        return next(iter(classes.values()), None)
    fields_ = [
        (name.replace("-", "_"), Annotated[cls, Flag(name)], field(default_factory=cls))
        for name, cls in classes.items()
    ]
    return make_dataclass("Options", fields_, frozen=True, kw_only=True)


def named_schema(registry: Registry, owner: Option, thing: Any) -> tuple[Option, ...] | None:
    """The options of the thing that ``owner`` names; of several things each under its thing's name, ``si.c``."""
    cls = named_options(registry, owner, thing)
    if cls is None or not owner.many:
        return None if cls is None else schema(cls)
    return tuple(
        replace(sub, field=f"{part.key}.{sub.key}", key=f"{part.key}.{sub.key}")
        for part in schema(cls)
        for sub in schema(part.base)
    )


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
    owner = next(other for other in schema(type(config)) if other.field == option.options_of)
    known = named_schema(registry, owner, getattr(config, owner.field))
    if known is None:
        return dict(given)
    values = {sub.key: plain(given.get(sub.field, sub.default)) for sub in known}
    if changed:
        return {sub.key: values[sub.key] for sub in known if values[sub.key] != plain(sub.default)}
    return values


def full(registry: Registry, config: ExperimentConfig) -> dict[str, Any]:
    """Every value of a configuration by TOML key, the options of named things included, as JSON has them."""
    return {
        option.key: named(registry, config, option, changed=False)
        if option.options_of
        else plain(getattr(config, option.field))
        for option in schema(type(config))
    }


def changed(registry: Registry, config: ExperimentConfig) -> dict[str, Any]:
    """Only the values that matter: those whose default would give another resolved configuration."""
    resolved, found = full(registry, config.resolved()), {}
    for option in schema(type(config)):
        if option.options_of:
            if values := named(registry, config, option, changed=True):
                found[option.key] = values
            continue
        value = getattr(config, option.field)
        if plain(value) == plain(option.default):
            continue
        if full(registry, replace(config, **{option.field: option.default}).resolved()) != resolved:
            found[option.key] = plain(value)
    return found


def plain(value: Any) -> Any:
    """The JSON form of a value: paths are strings, tuples are lists."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def to_toml(values: Mapping[str, Any]) -> str:
    """Plain values as TOML; None is left out, nested mappings become tables.

    >>> print(to_toml({"lr": 0.5, "backbone_options": {"width": 2.0}}), end="")
    lr = 0.5
    <BLANKLINE>
    [backbone_options]
    width = 2.0
    """
    lines = [f"{key} = {_literal(value)}" for key, value in values.items() if _is_leaf(value)]
    for key, table in values.items():
        if isinstance(table, Mapping) and table:
            leaves = (f"{_key(name)} = {_literal(item)}" for name, item in table.items() if _is_leaf(item))
            lines += ["", f"[{key}]", *leaves]
    return "\n".join(lines) + "\n"


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
