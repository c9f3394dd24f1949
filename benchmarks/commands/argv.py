"""Command line tokens -> raw values by option; what they mean is checked later, together with TOML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engram.backbone.errors import nearest
from engram.backbone.options.named import is_known, named_schema, short, things
from engram.backbone.options.schema import Option, owners, schema
from engram.backbone.options.spelling import spell
from engram.backbone.registry import Registry


@dataclass
class Parsed:
    """``values[group][name]``: raw strings (True and False for switches) of the options of each group."""

    words: list[str] = field(default_factory=list)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """What a flag gives a value to: an option of a group."""

    group: str
    option: Option


def places(group: str, cls: type, registry: Registry | None = None, argv: Sequence[str] = ()) -> dict[str, Place]:
    """All flags of a dataclass; those of named things (``--backbone.width``) as ``argv`` chooses the things."""
    options = schema(cls)
    found = {option.flag: Place(group, option) for option in options if option.options_of is None}
    for option in options:
        if option.options_of is None or registry is None:
            continue
        owner = owners(cls)[option.field]
        thing = last_given(argv, owner)
        chosen = named_schema(registry, owner, thing) or ()
        found |= {f"{option.flag}.{sub.name}": Place(group, sub) for sub in chosen}
        if owner.many and len(things(thing)) == 1:  # no need to say whose they are
            prefix = short(things(thing)[0]) + "."
            found |= {f"{option.flag}.{sub.name.removeprefix(prefix)}": Place(group, sub) for sub in chosen}
    return found


def last_given(argv: Sequence[str], option: Option) -> Any:
    """What an option will end up with: its default, a value, or several, however often its flag comes."""
    if not option.many:
        return last_value(argv, option.flag) or option.default
    values: tuple[str, ...] = ()
    for index, token in enumerate(argv):
        head, equals, tail = token.partition("=")
        if _dashed(head) == option.flag:
            rest = argv[index + 1 :]
            end = next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))
            values += tuple(item for word in ([tail] if equals else rest[:end]) for item in word.split(",") if item)
    return values or option.default


def last_value(argv: Sequence[str], flag: str) -> str | None:
    """The value a flag will end up with."""
    value = None
    for index, token in enumerate(argv):
        head, equals, tail = token.partition("=")
        if _dashed(head) == flag:
            value = tail if equals else (argv[index + 1] if index + 1 < len(argv) else None)
    return value


def unregistered(cls: type, registry: Registry, argv: Sequence[str]) -> tuple[str, ...]:
    """Beginnings of flags (``--backbone.``) whose owner is not a registered thing, so that its options are unknown."""
    found = []
    for option in schema(cls):
        if option.kind is None:
            continue
        if not all(is_known(registry, option, name) for name in things(last_given(argv, option))):
            found.append(f"{option.flag}.")
    return tuple(found)


def parse(argv: Sequence[str], flags: Mapping[str, Place], see: str, ignored: tuple[str, ...] = ()) -> Parsed:
    """Sort tokens into words and values.

    ``see`` is the next step offered for a mistake. Flags that begin with one of ``ignored``, and their values, are
    skipped without an error.
    """
    parsed, rest = Parsed(), list(argv)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            parsed.words.append(token)
            continue
        head, equals, tail = token.partition("=")
        head = _dashed(head)
        switch = f"--{head[5:]}" if head.startswith("--no-") and head not in flags else ""
        switched_off = switch in flags and flags[switch].option.base is bool
        flag = switch if switched_off else head
        place = flags.get(flag)
        if place is None:
            if not head.startswith(ignored):
                hint = nearest(head, flags)
                parsed.problems.append(f"option must be one of those offered; got {head}. {hint} {see}")
            while rest and not rest[0].startswith("--"):
                rest.pop(0)
            continue
        if switched_off and equals:
            parsed.problems.append(f"{head} must be written without a value; got {tail}. Write {flag}=false or =true.")
        elif place.option.base is bool and not equals:
            _store(parsed, place, flag, not switched_off)
        elif equals:
            _store(parsed, place, flag, tail)
        elif not rest or rest[0].startswith("--"):
            parsed.problems.append(f"{head} must be {place.option.rule()}; got nothing. {see}")
        elif place.option.many:
            values: list[str] = []
            while rest and not rest[0].startswith("--"):
                values += [item for item in rest.pop(0).split(",") if item]
            _store(parsed, place, flag, values)
        else:
            _store(parsed, place, flag, rest.pop(0))
    return parsed


def _store(parsed: Parsed, place: Place, flag: str, value: Any) -> None:
    values = parsed.values.setdefault(place.group, {})
    before = values.get(flag[2:])
    values[flag[2:]] = value if before is None or not place.option.many else [*_listed(before), *_listed(value)]


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [item for item in value.split(",") if item]


def _dashed(head: str) -> str:
    return f"--{spell(head)}" if head.startswith("--") else head
