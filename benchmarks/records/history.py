"""What a search knows: its record, line by line, and nothing else. A line costs the same however many stand before."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engram.backbone.contract import Direction
from engram.benchmarks.records.search import Asked, Begun, Event, Ranked, Told, read_events
from engram.benchmarks.records.stored import Damaged

CLOSE = 1e-9
"""Shares of a proposal's work that differ by less are one."""
State = Literal["open", "done", "failed", "pruned", "refused"]


@dataclass
class Proposal:
    """Options, and a trial for each seed.

    Attributes:
        refused: why there can be no such trials; "": there are.
        again: its trials are those of an earlier proposal, and cost nothing.
        rungs: the values at the rungs it came to.
        given_up: after which share of its work that was decided; None: it goes on.
    """

    number: int
    options: Mapping[str, Any]
    trials: tuple[str, ...]
    refused: str = ""
    again: bool = False
    rungs: list[float] = field(default_factory=list)
    given_up: float | None = None

    @property
    def fate(self) -> str:
        """Where it was given up, in words; "" where it was not."""
        if self.given_up is None:
            return ""
        return f"at rung {len(self.rungs)}, after {self.given_up:.0%} of its work, with {self.rungs[-1]:.4g}"

    def reaches(self, seed: int) -> bool:
        """Whether it was not given up before it came to a seed."""
        return self.given_up is None or seed < self.given_up * len(self.trials) - CLOSE


class Rung:
    """The values of all that came to one rung, in their order; what is no number counts and is better than nothing."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.count = 0
        self._ranked: list[float] = []
        for value in values:
            self.add(value)

    def add(self, value: float) -> None:
        self.count += 1
        if not math.isnan(value):
            insort(self._ranked, value)

    def better(self, value: float, direction: Direction) -> int:
        """How many are better than a value."""
        if direction == "max":
            return len(self._ranked) - bisect_right(self._ranked, value)
        return bisect_left(self._ranked, value)


@dataclass
class History:
    """Proposals in their order, what came of their trials, and what all of it has cost.

    ``in_turn``: the seeds of a proposal are run one after the other, until one has no result.
    """

    in_turn: bool = False
    proposals: list[Proposal] = field(default_factory=list)
    results: dict[str, Told] = field(default_factory=dict)
    places: dict[str, tuple[Proposal, int]] = field(default_factory=dict)
    """Trial -> the proposal that had it first, and the place of its seed."""
    seconds: float = 0.0
    joules: float = 0.0
    work: float = 0.0
    """Whole trials that were done or are to be done for what was proposed so far."""
    open: int = 0
    """Proposals of which more is to come."""
    _states: list[State] = field(default_factory=list)
    _works: list[float] = field(default_factory=list)
    _rungs: list[Rung] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """What an event changes."""
        self.seconds, self.joules = max(self.seconds, event.seconds), max(self.joules, event.joules)
        if isinstance(event, Asked):
            again = bool(event.trials) and all(trial in self.places for trial in event.trials)
            made = Proposal(event.proposal, event.options, tuple(event.trials), event.refused, again)
            self.proposals.append(made)
            for index, trial in enumerate(event.trials):
                self.places.setdefault(trial, (made, index))
            self._states.append("refused")
            self._works.append(0.0)
            self._changed(made)
        elif isinstance(event, Ranked):
            proposal, value = self.proposals[event.proposal], math.nan if event.value is None else event.value
            self.at_rung(len(proposal.rungs)).add(value)
            proposal.rungs.append(value)
            proposal.given_up = None if event.kept else event.share
            self._changed(proposal)
        elif isinstance(event, Told):
            self.results[event.trial] = event
            if event.trial in self.places:
                self._changed(self.places[event.trial][0])

    def _changed(self, proposal: Proposal) -> None:
        """Look again at how far a proposal is, and what it costs."""
        if proposal.refused or proposal.again:
            return
        state, seeds = self._look(proposal), len(proposal.trials)
        done = [trial in self.results and self.results[trial].status != "pruned" for trial in proposal.trials]
        spent = max(sum(done), (proposal.given_up or 0.0) * seeds)  # a short one may end before it is stopped
        work = float(seeds if state in ("open", "done") else spent)
        self.open += (state == "open") - (self._states[proposal.number] == "open")
        self.work += work - self._works[proposal.number]
        self._states[proposal.number], self._works[proposal.number] = state, work

    def _look(self, proposal: Proposal) -> State:
        if all(map(self.done, proposal.trials)):
            return "done"
        if proposal.given_up is not None:
            return "pruned"
        told = [self.results[trial].status for trial in proposal.trials if trial in self.results]
        return "failed" if "failed" in told and (self.in_turn or len(told) == len(proposal.trials)) else "open"

    def done(self, trial: str) -> bool:
        return trial in self.results and self.results[trial].status == "done"

    def state(self, proposal: Proposal) -> State:
        """How far a proposal is: done when all its trials are."""
        return self._states[self.places[proposal.trials[0]][0].number if proposal.again else proposal.number]

    def values(self, proposal: Proposal, seeds: int) -> list[list[float]]:
        """The objectives' values of its first ``seeds`` trials, nan for one that lacks them."""
        rows = [self.results[trial].values for trial in proposal.trials[:seeds] if trial in self.results]
        return [[math.nan if value is None else value for value in row] for row in rows]

    def scores(self, proposal: Proposal) -> list[float] | None:
        """The mean of each objective over all seeds; None where that is not known, or no number."""
        if self.state(proposal) != "done":
            return None
        rows = self.values(proposal, len(proposal.trials))
        means = [math.fsum(column) / len(column) for column in zip(*rows, strict=True)]
        return means if means and all(map(math.isfinite, means)) else None

    def known(self) -> Iterator[tuple[Mapping[str, Any], list[float] | None]]:
        """The options of what is done, with the scores, and of what is not done yet, without; nothing of others."""
        for proposal in self.proposals:
            scores = self.scores(proposal)
            if scores is not None or self.state(proposal) == "open":
                yield proposal.options, scores

    def at_rung(self, rung: int) -> Rung:
        """The values of all that came to a rung."""
        while len(self._rungs) <= rung:
            self._rungs.append(Rung())
        return self._rungs[rung]

    def cells(self) -> Iterator[tuple[Proposal, int]]:
        """The proposals with the places of those seeds that they came to, as far as one knows: the trials of the plan.

        Of seeds in turn the next one counts when the one before is done.
        """
        for proposal in self.proposals:
            if proposal.refused or proposal.again:
                continue
            for index in range(len(proposal.trials)):
                waits = self.in_turn and index > 0 and not self.done(proposal.trials[index - 1])
                if waits or not proposal.reaches(index):
                    break
                yield proposal, index

    @property
    def fruitless(self) -> int:
        """How many proposals in a row, up to the last one, brought no trial that was not there before."""
        count = 0
        for proposal in reversed(self.proposals):
            if not (proposal.refused or proposal.again):
                break
            count += 1
        return count


def proposed(
    path: Path, axes: Iterable[str], seeds: Sequence[int], *, in_turn: bool
) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """(the trials that a search's record in ``path`` asked for, as plan.json has them, each with its `Proposal.fate`
    where its proposal was given up; the values of each of ``axes`` that they have).

    Raises:
        Damaged: it cannot be read.
    """
    history = History(in_turn=in_turn)
    try:
        events, _, _ = read_events(path)  # what stands behind a damaged line is asked for again
    except OSError as error:
        raise Damaged(path, f"a file that is not readable here ({error.strerror})") from None
    for event in events:
        history.add(event)
    first = events[0] if events else None
    experiment = first.about.get("experiment", "?") if isinstance(first, Begun) else "?"
    known = dict(enumerate(seeds))  # a stranger's plan may have other ones
    cells = [
        {
            "trial": each.trials[index],
            "experiment": experiment,
            "options": dict(each.options),
            "seed": known.get(index),
            "given_up": each.fate,
        }
        for each, index in history.cells()
    ]
    return cells, values_of(axes, [cell["options"] for cell in cells])


def values_of(axes: Iterable[str], chosen: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values that were proposed of each option, in their order."""
    found: dict[str, dict[str, Any]] = {axis: {} for axis in axes}
    for options in chosen:
        for name, value in options.items():
            found.setdefault(name, {}).setdefault(repr(value), value)
    return {name: list(values.values()) for name, values in found.items()}
