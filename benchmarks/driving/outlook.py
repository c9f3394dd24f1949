"""How long is left of a plan, at a cost that does not grow with the number of its trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.records.pace import Pace, kind


class Outlook:
    """Counts trials by kind: those that wait, and what those took that are over."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._kinds: dict[str, tuple[str, str]] = {}
        self._waiting: Counter[tuple[str, str]] = Counter()
        self._before: list[tuple[Trial, float]] = []  # done before: their kinds matter only once something runs

    def done_before(self, trial: Trial, seconds: float | None) -> None:
        if seconds is not None:
            self._before.append((trial, seconds))

    def waits(self, trial: Trial) -> None:
        self._waiting[self._kind(trial)] += 1

    def waits_no_more(self, trial: Trial) -> None:
        """It starts, or never will."""
        of = self._kind(trial)
        self._waiting[of] -= 1
        if not self._waiting[of]:
            del self._waiting[of]

    def took(self, trial: Trial, seconds: float) -> None:
        self._pace.add(self._kind(trial), seconds)

    def left(self, running: Iterable[tuple[Trial, float, float | None]], workers: int) -> float | None:
        """Seconds until the last trial is over; None when too little is known.

        Args:
            running: trial, seconds so far, and seconds left where the trial's progress says so.
            workers: trials at once.
        """
        waiting, kinds = self._waiting, [(self._kind(trial), so_far, left) for trial, so_far, left in running]
        if not waiting and not kinds:
            return None
        while self._before:
            self.took(*self._before.pop())
        return self._pace.left(waiting, kinds, workers)

    def _kind(self, trial: Trial) -> tuple[str, str]:
        if trial.id not in self._kinds:
            self._kinds[trial.id] = kind(trial.experiment, trial.config)
        return self._kinds[trial.id]
