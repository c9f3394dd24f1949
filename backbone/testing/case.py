"""One check of the kit, and what it may come to: it holds, or it is refused as somebody declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from unittest import SkipTest

from engram.backbone.errors import MissingData, UserError


@dataclass(frozen=True)
class Refusal:
    """A combination that is refused on purpose, wherever all of ``things`` come together.

    Attributes:
        things: names of registered things, and ``--from`` where an experiment is given a trained network.
        reason: part of the message of the UserError.
        without: what must not be among them: with it the combination works.
    """

    things: tuple[str, ...]
    reason: str
    without: tuple[str, ...] = ()

    def concerns(self, things: tuple[str, ...]) -> bool:
        """Whether a case has all of its things, and none of the others."""
        return set(self.things) <= set(things) and not set(self.without) & set(things)


@dataclass(frozen=True)
class Case:
    """A check of registered things: ``str(case)`` says which.

    Attributes:
        what: is checked.
        things: the names of those that take part, the checked ones first.
        check: raises AssertionError where a contract is broken.
        refusal: part of the message with which it must be refused; None for what must work.
    """

    what: str
    things: tuple[str, ...]
    check: Callable[[], object]
    refusal: str | None = None

    def __str__(self) -> str:
        return f"{' + '.join(self.things)}: {self.what}"

    def run(self) -> None:
        """Check.

        Raises:
            AssertionError: a contract is broken, something is refused that nobody declared, or for another reason, or
                what was declared to be refused works.
            SkipTest: files of a data set are not there.
        """
        try:
            self.check()
        except MissingData as error:
            raise SkipTest(str(error)) from None
        except UserError as error:
            if self.refusal is None:
                raise AssertionError(f"{self}: refused, which nobody declared: {error}") from error
            if self.refusal not in str(error):
                raise AssertionError(f"{self}: refused, but not for {self.refusal!r}: {error}") from error
        else:
            if self.refusal is not None:
                raise AssertionError(f"{self}: declared to be refused for {self.refusal!r}, but it works")


def require(holds: object, rule: str) -> None:
    """Say which rule of a contract is broken, unless it holds."""
    if not holds:
        raise AssertionError(rule)
