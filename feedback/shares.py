"""Numbers for all stages or for each, as text: ``0.4`` or ``0.2,0.4,0.4``; no torch here."""

from __future__ import annotations

import math
from typing import Any

from engram.backbone.errors import must


class Numbers:
    """Marks an option that holds numbers from 0 to ``most`` as text, which is brought to one form."""

    def __init__(self, what: str, most: float = math.inf) -> None:
        self.what, self.most = what, most

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._in_one_form, handler(source))

    def _in_one_form(self, text: str) -> str:
        return ",".join(f"{value:g}" for value in numbers(text, self.what, self.most))


def numbers(text: str, what: str, most: float = math.inf) -> list[float]:
    """The numbers of an option: one for all stages, or one for each, with commas between.

    Raises:
        UserError: it holds something else.

    >>> numbers("0.2, 0.4,0.4", "feedforward")
    [0.2, 0.4, 0.4]
    >>> numbers("0.2,much", "feedforward", 1.0)
    Traceback (most recent call last):
    engram.backbone.errors.UserError: feedforward must be a number from 0 to 1, or one for each stage with commas \
between; got '0.2,much'. Write it as in 0.4 or 0.2,0.4,0.4.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(0 <= value <= most and math.isfinite(value) for value in found):
        span = f"from 0 to {most:g}" if math.isfinite(most) else "from 0"
        rule = f"a number {span}, or one for each stage with commas between"
        raise must(what, rule, repr(text), "Write it as in 0.4 or 0.2,0.4,0.4.")
    return found
