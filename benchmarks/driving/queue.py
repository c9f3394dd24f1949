"""Which trials may start: those whose needs are met. Each costs its own needs to look at, however many others wait."""

from __future__ import annotations

from collections import deque

from engram.benchmarks.planning.plan import Trial


class Queue:
    """Trials that were proposed and have not started, in the order in which they came."""

    def __init__(self) -> None:
        self._ready: deque[Trial] = deque()
        self._lacks: dict[str, set[str]] = {}  # trial -> the needs that are not met
        self._wait_for: dict[str, list[Trial]] = {}  # need -> the trials that wait for it
        self._known: set[str] = set()
        self._over: dict[str, bool] = {}  # trial -> whether it has a result

    def add(self, trial: Trial) -> str:
        """Take a trial; the need that has failed already, for which it is not taken, or "".

        A need that was never added is met: it was done before.
        """
        self._known.add(trial.id)
        if lost := next((need for need in trial.needs if self._over.get(need) is False), ""):
            self._over[trial.id] = False
            return lost
        lacks = {need for need in trial.needs if need in self._known and need not in self._over}
        if not lacks:
            self._ready.append(trial)
            return ""
        self._lacks[trial.id] = lacks
        for need in lacks:
            self._wait_for.setdefault(need, []).append(trial)
        return ""

    def next(self) -> Trial | None:
        """The next trial that may start."""
        return self._ready.popleft() if self._ready else None

    def again(self, trial: Trial) -> None:
        """Put a trial back that had started."""
        self._ready.append(trial)

    def over(self, identity: str, done: bool) -> list[tuple[Trial, str]]:
        """Note that a trial is over; the trials that can never start now, each with the need that it lacks."""
        self._known.add(identity)
        self._over[identity] = done
        dropped: list[tuple[Trial, str]] = []
        for trial in self._wait_for.pop(identity, ()):
            if trial.id not in self._lacks:
                continue  # another of its needs failed before
            if not done:
                del self._lacks[trial.id]
                dropped += [(trial, identity), *self.over(trial.id, False)]
                continue
            self._lacks[trial.id].discard(identity)
            if not self._lacks[trial.id]:
                del self._lacks[trial.id]
                self._ready.append(trial)
        return dropped

    @property
    def ready(self) -> int:
        """How many may start."""
        return len(self._ready)

    def __len__(self) -> int:
        return len(self._ready) + len(self._lacks)
