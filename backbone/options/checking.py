"""Values from flags, TOML or Python -> values in the types that a dataclass says, or every mistake in one go."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Protocol, TypeVar, runtime_checkable

from engram.backbone.contract import Kind, Named
from engram.backbone.errors import UserError, nearest
from engram.backbone.options.named import is_known, named_schema, short, things
from engram.backbone.options.schema import Option, owners, schema
from engram.backbone.options.spelling import by_flag, twice
from engram.backbone.options.values import as_type
from engram.backbone.registry import SINGULAR, Registry

T = TypeVar("T")


@dataclass
class Checker:
    """Validates values against dataclasses and gathers every problem.

    ``name`` says how the reader writes the name of an option (``--lr`` or ``lr``); ``next_step`` where to read on.
    """

    registry: Registry
    name: Callable[[str], str]
    next_step: str
    problems: list[str] = field(default_factory=list)

    def check(self, cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values by field, in the types of ``cls``, from values by name in any spelling; adds to ``problems``.

        Options of named things are by their thing's fields.
        """
        for problem in twice(values):
            self._add(problem)
        own, tables = _offered(cls)
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
                owner = owners(cls)[option.field]
                given[option.field] = self._named(option, owner, given.get(owner.field, owner.default), inside[name])
        return given

    def build(self, cls: type[T], values: Mapping[str, Any]) -> T | None:
        """An instance of ``cls`` of the values alone, or None after adding to ``problems``."""
        before = len(self.problems)
        given = self.check(cls, values)
        return cls(**given) if len(self.problems) == before else None

    def require(self) -> None:
        """Refuse what was found.

        Raises:
            UserError: one line per problem.
        """
        if self.problems:
            raise UserError("\n".join(self.problems))

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
        if option.many and option.kind is not None and (value is None or value in ("none", ["none"], ("none",))):
            return ()
        try:
            converted, why = as_type(option, value)
        except UserError as error:  # a file of the user's own that cannot be read
            self._add(str(error))
            return value
        if why:
            close = nearest(str(value), (*option.choices, *option.words))
            hint = f"{close} " if close.startswith("Did") else ""  # else the rule has named them all
            shown = str(value) if str(value).strip() else repr(value)
            self._add(f"{self.name(name)} must be {why}; got {shown}. {hint}{self.next_step}")
        elif option.kind is not None:
            return self._registered(option, name, converted)
        return converted

    def _registered(self, option: Option, name: str, value: Any) -> Any:
        """The whole names of registered things; several must be told apart among their options."""
        assert option.kind is not None
        try:
            if not option.many:
                return self.registry.chosen(option.kind, value)
            found = tuple(self.registry.chosen(option.kind, item) for item in value)
        except UserError as error:
            self._add(str(error))
            return value
        if len({short(each) for each in found}) < len(found):
            got = ", ".join(map(short, found))
            self._add(f"{self.name(name)} must be different ones; got {got}. Name each once.")
        return found

    def _named(self, option: Option, owner: Option, thing: Any, values: Mapping[str, Any]) -> Any:
        """Check the options of a registered thing against the thing's own dataclass."""
        known = named_schema(self.registry, owner, thing)
        if known is None:
            if all(is_known(self.registry, owner, each) for each in things(thing)):
                got = ", ".join(self.name(f"{option.name}.{key}") for key in values)
                self._add(
                    f"{self.name(owner.name)} must be something that has options; got {got} for "
                    f"{', '.join(things(thing)) or None}. Leave it out."
                )
            return {}
        own = {sub.name: sub for sub in known}
        if owner.many and len(things(thing)) == 1:  # no need to say whose they are
            prefix = short(things(thing)[0]) + "."
            values = {key if key in own or f"{prefix}{key}" not in own else prefix + key: values[key] for key in values}
        self._unknown(values, own, f"{option.name}.")
        return {
            own[key].field: self._value(own[key], f"{option.name}.{key}", value)
            for key, value in values.items()
            if key in own
        }

    def _add(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


@cache
def _offered(cls: type) -> tuple[dict[str, Option], dict[str, Option]]:
    """By name, a class's own options, and those that hold the options of named things."""
    own = {option.name: option for option in schema(cls) if option.options_of is None}
    return own, {option.name: option for option in schema(cls) if option.options_of is not None}


@runtime_checkable
class Fills(Protocol):
    """Options of which some follow from others: ``filled()`` is the same with all of them filled in."""

    def filled(self) -> Any: ...


def in_full(registry: Registry, kind: Kind, name: str, given: Mapping[str, Any]) -> Named:
    """A registered thing with all its options: those that were not given have their defaults.

    Raises:
        UserError: as `options_of`.

    >>> in_full(Registry.discover(), "adapters", "snn.qcfs", {"levels": 8}).options
    {'levels': 8, 'per': 'channel', 'threshold': None}
    """
    options = options_of(registry, kind, name, given)
    filled = options.filled() if isinstance(options, Fills) else options
    values = {} if filled is None else asdict(filled)
    return Named(registry.canonical(kind, name), registry.entry(kind, name).version, json.loads(json.dumps(values)))


def options_of(registry: Registry, kind: Kind, name: str, given: Mapping[str, Any]) -> Any:
    """An instance of the options dataclass of a registered thing; None for a thing that has none.

    Args:
        name: ``NAME`` or ``NAME:PATH``.
        given: values by field name; absent ones take their defaults.

    Raises:
        UserError: one line for every option that is unknown or has a value it cannot have.

    >>> options_of(Registry.discover(), "backbones", "vgg-tiny", {"width": 0.5}).width
    0.5
    """
    cls = registry.options(kind, name)
    flag = f"--strategies.{short(name)}" if kind == "strategies" else f"--{SINGULAR[kind]}"
    checker = Checker(registry, lambda option: f"{flag}.{option}", f"See: engram list {kind}")
    if cls is None and given:
        checker.problems += [
            f"{checker.name(key)} must be left out for {SINGULAR[kind]} {name!r}, which has no options; got {value!r}. "
            "Leave it out."
            for key, value in given.items()
        ]
    found = None if cls is None else checker.build(cls, given)
    checker.require()
    return found
