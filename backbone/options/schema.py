"""What a configuration dataclass offers: one `Option` per field, as a flag and as a TOML key."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from engram.backbone.contract import Flag, Kind, OptionsOf, Registered
from engram.backbone.options.spelling import spell

_LISTS: tuple[Any, ...] = (tuple, list, Sequence)  # what holds one kind of value


@dataclass(frozen=True)
class Option:
    """One field of a configuration dataclass.

    ``key`` is its key in config.json (the field's name, or what `Flag` says), ``name`` what it is called everywhere
    else, and ``type`` its annotation without None and without ``words``: what may stand in its place, such as "auto"
    for a number. The options of a named thing are called by the thing. ``support`` and ``compared`` are those of
    `Registered`.
    """

    field: str
    key: str
    type: Any
    optional: bool
    default: Any
    kind: Kind | None = None
    options_of: str | None = None
    words: tuple[str, ...] = ()
    support: bool = False
    compared: bool = False

    @cached_property
    def name(self) -> str:
        return spell(self.key if self.options_of is None else self.options_of)

    @cached_property
    def flag(self) -> str:
        return f"--{self.name}"

    @cached_property
    def base(self) -> Any:
        """The bare type: float for ``Annotated[float, Gt(0)]``, tuple for ``tuple[int, ...]``."""
        inner = get_args(self.type)[0] if get_origin(self.type) is Annotated else self.type
        return get_origin(inner) or inner

    @cached_property
    def many(self) -> bool:
        """Whether the option takes a list of values."""
        return isinstance(self.base, type) and issubclass(self.base, Sequence) and not issubclass(self.base, str)

    @cached_property
    def choices(self) -> tuple[str, ...]:
        inner = get_args(self.type)[0] if get_origin(self.type) is Annotated else self.type
        return tuple(map(choice_text, get_args(inner))) if self.base is Literal else ()

    @cached_property
    def metadata(self) -> tuple[Any, ...]:
        return tuple(get_args(self.type)[1:]) if get_origin(self.type) is Annotated else ()

    def range(self) -> str:
        """The allowed interval in words, or "".

        >>> from engram.backbone.experiments.configs import TrainConfig
        >>> by_key(TrainConfig)["validation"].range()
        'at least 0 and less than 1'
        """
        words = (("gt", "greater than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most"))
        found = [
            f"{text} {getattr(mark, name)}"
            for mark in self.metadata
            for name, text in words
            if getattr(mark, name, None) is not None
        ]
        return " and ".join(found)

    def rule(self) -> str:
        """What a value must be, in words.

        >>> from engram.backbone.experiments.configs import TrainConfig
        >>> by_key(TrainConfig)["lr"].rule()
        'a number greater than 0'
        """
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.many:
            return "a list, such as 1,2,3"
        nouns = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
        noun = nouns.get(self.base, f"a {getattr(self.base, '__name__', self.base)}")
        limits = self.range().replace("at least", "of at least", 1)
        return ", or ".join((f"{noun} {limits}".strip(), *self.words))


def choice_text(choice: Any) -> str:
    """How one of the values of a Literal is written.

    >>> choice_text(3), choice_text(True), choice_text(None)
    ('3', 'true', 'none')
    """
    return str(choice).lower() if choice is None or isinstance(choice, bool) else str(choice)


def from_text(hint: Any) -> Any:
    """An annotation that validates as ``hint`` does and also takes the text of every choice: flags are text.

    Pydantic reads "3" where an int is wanted, and refuses it where one of 1 and 3 is.
    """
    from pydantic import BeforeValidator

    origin: Any = get_origin(hint)
    inside = get_args(hint)
    if origin is Literal:
        texts = {choice_text(choice): choice for choice in inside if not isinstance(choice, str)}
        texts |= {choice: choice for choice in inside if isinstance(choice, str)}
        return Annotated[hint, BeforeValidator(lambda value: texts.get(value, value) if type(value) is str else value)]
    if origin is Annotated:
        return Annotated[from_text(inside[0]), *inside[1:]]
    if origin in (Union, types.UnionType):
        return Union[tuple(map(from_text, inside))]  # noqa: UP007 - built at run time
    return origin[tuple(map(from_text, inside))] if origin in _LISTS else hint


@cache
def schema(cls: type) -> tuple[Option, ...]:
    """The options of a dataclass, in the order of its fields."""
    hints = get_type_hints(cls, include_extras=True)
    return tuple(_option(field, hints[field.name]) for field in fields(cls) if field.init)


@cache
def owners(cls: type) -> Mapping[str, Option]:
    """By the field that holds options of named things, the option that names these."""
    options = {option.field: option for option in schema(cls)}
    return {option.field: options[option.options_of] for option in schema(cls) if option.options_of is not None}


def by_key(cls: type) -> Mapping[str, Option]:
    return {option.key: option for option in schema(cls)}


def _option(field: Any, hint: Any) -> Option:
    annotation, optional = _without_none(hint)
    annotation, words = _without_words(annotation)
    marks = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    flag = next((mark.name for mark in marks if isinstance(mark, Flag)), field.name)
    registered = next((mark for mark in marks if isinstance(mark, Registered)), None)
    kind: Kind | None = None if registered is None else registered.kind
    options_of = next((mark.field for mark in marks if isinstance(mark, OptionsOf)), None)
    if options_of is not None and flag != f"{options_of}_options":
        # names are spelled without looking at a class: `engram.backbone.options.spelling`
        raise TypeError(f"the options of {options_of!r} must be called {options_of}_options; got {flag}")
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return Option(
        field.name,
        flag,
        annotation,
        optional,
        default,
        kind,
        options_of,
        words,
        registered is not None and registered.support,
        registered is not None and registered.compared,
    )


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Take None out of a union, below and above Annotated alike, keeping all metadata."""
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        inner, optional = _without_none(inner)
        return Annotated[inner, *marks], optional
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        optional = len(members) < len(get_args(hint))
        return (members[0] if len(members) == 1 else Union[tuple(members)]), optional  # noqa: UP007 - built at run time
    return hint, False


def _without_words(hint: Any) -> tuple[Any, tuple[str, ...]]:
    """Take the words out of a union of something else with them."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, ()
    rest = [member for member in get_args(hint) if get_origin(member) is not Literal]
    words = tuple(word for member in get_args(hint) if get_origin(member) is Literal for word in get_args(member))
    apart = len(rest) == 1 and all(isinstance(word, str) for word in words)
    return (rest[0], words) if apart else (hint, ())
