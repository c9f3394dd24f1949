"""What a search knows: its record, line by line, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engram.benchmarks.records.search import Asked, Event, Ranked, Told

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

    def add(self, event: Event) -> None:
        """What an event changes."""
        self.seconds, self.joules = max(self.seconds, event.seconds), max(self.joules, event.joules)
        if isinstance(event, Asked):
            again = bool(event.trials) and all(trial in self.places for trial in event.trials)
            made = Proposal(event.proposal, event.options, tuple(event.trials), event.refused, again)
            self.proposals.append(made)
            for index, trial in enumerate(event.trials):
                self.places.setdefault(trial, (made, index))
        elif isinstance(event, Ranked):
            proposal = self.proposals[event.proposal]
            proposal.rungs.append(math.nan if event.value is None else event.value)
            proposal.given_up = None if event.kept else event.share
        elif isinstance(event, Told):
            self.results[event.trial] = event

    def done(self, trial: str) -> bool:
        return trial in self.results and self.results[trial].status == "done"

    def state(self, proposal: Proposal) -> State:
        """How far a proposal is: done when all its trials are."""
        if proposal.refused:
            return "refused"
        proposal = self.places[proposal.trials[0]][0] if proposal.again else proposal
        if all(map(self.done, proposal.trials)):
            return "done"
        if proposal.given_up is not None:
            return "pruned"
        told = [self.results[trial].status for trial in proposal.trials if trial in self.results]
        return "failed" if "failed" in told and (self.in_turn or len(told) == len(proposal.trials)) else "open"

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

    def work(self, seeds: int) -> float:
        """Whole trials that were done or are to be done for what was proposed so far."""
        total = 0.0
        for proposal in self.proposals:
            if proposal.refused or proposal.again:
                continue
            state = self.state(proposal)
            if state in ("open", "done"):
                total += seeds
            else:
                done = sum(
                    trial in self.results and self.results[trial].status != "pruned" for trial in proposal.trials
                )
                total += max(done, (proposal.given_up or 0.0) * seeds)  # a short one may end before it is stopped
        return total

    def at_rung(self, rung: int) -> list[float]:
        """The values of all that came to a rung."""
        return [proposal.rungs[rung] for proposal in self.proposals if len(proposal.rungs) > rung]

    @property
    def fruitless(self) -> int:
        """How many proposals in a row, up to the last one, brought no trial that was not there before."""
        count = 0
        for proposal in reversed(self.proposals):
            if not (proposal.refused or proposal.again):
                break
            count += 1
        return count
