"""The options of a registered thing from a plain mapping: checked from Python as they are on the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any, Protocol, get_type_hints, runtime_checkable

from pydantic import ConfigDict, TypeAdapter, ValidationError

from engram.backbone.contract import Kind, Named
from engram.backbone.errors import UserError, must, nearest
from engram.backbone.registry import SINGULAR, Registry


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
    fields = {} if cls is None else _fields(cls)
    problems, values = [], {}
    for key, value in given.items():
        if key not in fields:
            hint = nearest(key, fields) if fields else "It has none."
            problems.append(must(f"an option of {SINGULAR[kind]} {name!r}", "a known one", repr(key), hint))
            continue
        values[key], why = _checked(fields[key], value)
        if why:
            flag = (
                f"--strategies.{name.partition(':')[0].rpartition('.')[2]}"
                if kind == "strategies"
                else f"--{SINGULAR[kind]}"
            )
            problems.append(must(f"{flag}.{key}", f"valid ({why})", repr(value), f"See: engram list {kind}"))
    if problems:
        raise UserError("\n".join(map(str, problems)))
    return None if cls is None else cls(**values)


def in_full(registry: Registry, kind: Kind, name: str, given: Mapping[str, Any]) -> Named:
    """A registered thing with all its options: those that were not given have their defaults, resolved.

    Raises:
        UserError: as `options_of`.

    >>> in_full(Registry.discover(), "adapters", "snn.qcfs", {"levels": 8}).options
    {'levels': 8, 'per': 'channel', 'threshold': None}
    """
    options = options_of(registry, kind, name, given)
    resolved = options.resolved() if isinstance(options, Resolves) else options
    values = {} if resolved is None else asdict(resolved)
    return Named(registry.canonical(kind, name), registry.entry(kind, name).version, json.loads(json.dumps(values)))


@runtime_checkable
class Resolves(Protocol):
    """Options of which some follow from others: ``resolved()`` is the same with all of them filled in."""

    def resolved(self) -> Any: ...


def _checked(field: TypeAdapter[Any], value: Any) -> tuple[Any, str]:
    """(value in the field's type, "") or (anything, what is wrong with it)."""
    try:
        found = field.validate_python(value)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"]
        return value, f"{why[0].lower()}{why[1:]}"
    truth = isinstance(value, bool) and not isinstance(found, bool)
    return found, "a number is wanted" if truth else ""


@cache
def _fields(cls: type) -> dict[str, TypeAdapter[Any]]:
    config = ConfigDict(allow_inf_nan=False)
    return {name: TypeAdapter(hint, config=config) for name, hint in get_type_hints(cls, include_extras=True).items()}
