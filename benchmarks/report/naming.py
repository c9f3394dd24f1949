"""How tables call groups: by the options that make them, a column for each, so that tables are sorted by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engram.backbone.contract import Scalar
from engram.benchmarks.compare.groups import Group
from engram.benchmarks.drawing.tables import word
from engram.benchmarks.report.html import Number

_MOST_BEFORE = 4
"""More options than these would push what is said of a group out of sight: the leaderboard has them behind it, and
other tables call groups by their places there."""


class Named:
    """The groups of one leaderboard, best first; ``by`` are the options that make them.

    ``behind``: in this table options that are many stand behind what is said.
    """

    def __init__(self, by: Sequence[str], groups: Sequence[Group], *, behind: bool = False) -> None:
        self.by = tuple(by)
        self._behind = self.by if behind else ()
        self._places = {group.label: place for place, group in enumerate(groups, start=1)}
        self._options = {group.label: group.options for group in groups}

    def head(self, *columns: str) -> tuple[str, ...]:
        """The heads of a table that says ``columns`` of groups."""
        if len(self.by) > _MOST_BEFORE:
            return ("place", *columns, *self._behind)
        return (*(self.by or ("group",)), *columns)

    def row(self, label: str, said: Sequence[object], options: Mapping[str, Scalar] | None = None) -> list[object]:
        """A row of it; ``options`` are those of a group that is not in the leaderboard."""
        if len(self.by) < 2:
            return [label, *said]
        known = self._options.get(label) or options or {}
        if len(self.by) > _MOST_BEFORE:
            return [self._places.get(label), *said, *(_as_given(known.get(axis)) for axis in self._behind)]
        return [*(_as_given(known.get(axis)) for axis in self.by), *said]


def _as_given(value: Scalar) -> object:
    """An option's value as it was written; a number is sorted as one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Number(value, word(value))
    return word(value)
