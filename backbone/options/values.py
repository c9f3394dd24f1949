"""One value -> the option's type, or the rule that it breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.backbone.options.schema import Option, from_text

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_PLAIN = (str, int, float, type(None))
LARGEST = 2**53
"""No whole number beyond it: some readers of JSON keep no larger one exactly, and trackers overflow soon after."""


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(from_text(annotation), config=ConfigDict(allow_inf_nan=False))


def as_type(option: Option, value: Any) -> tuple[Any, str]:
    """(value in the option's type, "") or (anything, the rule that it breaks)."""
    from pydantic import ValidationError

    if isinstance(value, bool) and option.base in (int, float):
        return value, option.rule()
    if option.base is Path and value == "":
        return value, option.rule()  # not the folder one stands in
    if option.many and isinstance(value, str):
        value = [item for item in value.split(",") if item]
    try:
        found = _adapter(option.type).validate_python(value)
        beyond = any(isinstance(each, int) and abs(each) > LARGEST for each in (found if option.many else (found,)))
        return (value, f"{option.rule()}, not beyond {LARGEST}") if beyond else (found, "")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"]:
            return value, f"{option.rule()} ({first['msg'][0].lower()}{first['msg'][1:]})"
        out_of_range = first["type"] in ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
        return value, option.range() if out_of_range and option.range() else option.rule()


def plain(value: Any) -> Any:
    """The JSON form of a value: paths are strings, tuples are lists."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return value
