"""All that is wrong with what was asked for, said at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from engram.backbone.errors import UserError

T = TypeVar("T")


class Problems:
    """Gathers the errors of work that goes on without what failed."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def of(self, work: Callable[[], T]) -> T | None:
        """What ``work`` returns; None after noting why it could not."""
        try:
            return work()
        except UserError as error:
            self._lines |= dict.fromkeys(str(error).splitlines())
            return None

    def require(self) -> None:
        """Refuse what was found.

        Raises:
            UserError: one line per problem.
        """
        if self._lines:
            raise UserError("\n".join(self._lines))
