"""Trials that are known from the start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.records.trials import Record


class Grid:
    """Proposes the trials of a plan in its order; gives none of them up."""

    def __init__(self, trials: Iterable[Trial], axes: Iterable[str] = ()) -> None:
        self._waiting = list(trials)
        self.axes = tuple(axes)
        self.total = len(self._waiting)

    def ask(self, n: int) -> Sequence[Trial]:
        proposed, self._waiting = self._waiting, []  # all of them: so it is known how long they will take
        return proposed

    def tell(self, trial: Trial, record: Record) -> None:
        pass

    def look(self, trial: Trial, record: Record) -> str:
        return ""

    @property
    def exhausted(self) -> bool:
        return not self._waiting
