"""A search as a proposer: what it asks for, what it is told, and what it gives up, all of it on its record first."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engram.backbone.contract import Direction
from engram.backbone.errors import UserError, must
from engram.backbone.registry import Registry
from engram.benchmarks.driving.energy import Meter
from engram.benchmarks.driving.proposing.halving import goes_on
from engram.benchmarks.driving.proposing.tail import Tail
from engram.benchmarks.driving.proposing.tpe import suggest
from engram.benchmarks.planning.plan import Planner, Trial
from engram.benchmarks.planning.search import Search
from engram.benchmarks.planning.space import draw
from engram.benchmarks.planning.suite import Suite
from engram.benchmarks.records.history import CLOSE, History, Proposal
from engram.benchmarks.records.pace import Progress
from engram.benchmarks.records.search import SEARCH, Asked, Begun, Clocked, Event, Ranked, SearchRecord, Told, plain
from engram.benchmarks.records.stored import write_json
from engram.benchmarks.records.trials import PRUNED, Record
from engram.benchmarks.saying import say

FRUITLESS = 100
"""After so many proposals in a row that are refused, or were there before, a space is taken to be empty."""
CLOCK_SECONDS = 30.0  # between two notes of how much time went by


class Searching:
    """Proposes what a suite's search says, for as long as its budget lasts.

    Args:
        suite: one with a search.
        folder: of the sweep, which the caller has locked; the record is there.
        publish: is given the cells of plan.json when it begins and when it is closed; between, the record has them.

    Raises:
        UserError: another search, or one with other data, was begun there; or what it needs is not there.
    """

    def __init__(
        self,
        suite: Suite,
        planner: Planner,
        registry: Registry,
        folder: Path,
        publish: Callable[[Sequence[Mapping[str, Any]]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert suite.search is not None
        self.suite, self.search, self.planner, self.registry = suite, suite.search, planner, registry
        self.axes = tuple(axis.name for axis in self.search.space)
        self.publish, self.clock = publish, clock
        self.meter = _meter(self.search)
        self.history = History(in_turn=bool(self.search.shares))
        self.trouble = ""
        self._waiting: deque[Trial] = deque()
        self._planned: dict[str, Trial] = {}  # those that are of a proposal
        self._handed: set[str] = set()
        self._tails: dict[str, Tail] = {}
        self.record = SearchRecord(folder / SEARCH)
        if self.record.lost:
            say(f"engram: {self.record.lost}; the search goes on from what stands before it")
        self._replay()

    # what was

    def _replay(self) -> None:
        events = self.record.events
        about = definition(self.suite)
        if events:
            first = events[0]
            before = first.about if isinstance(first, Begun) else {}
            other = [key for key in about if before.get(key) != about[key]]
            if other:
                rule, got = f"what the search {self.suite.name!r} was begun with", ", ".join(other)
                step = f"Give this one another name, or delete {self.record.path} to begin anew."
                raise must("the suite", rule, f"another {got}", step)
        for event in events:
            self.history.add(event)
        self._before, self._joules, self._begun = self.history.seconds, self.history.joules, self.clock()
        self._noted = self.clock()
        if not events:
            self._write(Begun(about=about))
        for trial, told in self.history.results.items():
            if told.status == "done" and None in told.values:
                self._lacks(Record(self.planner.out / "trials" / trial))
        taken = [each for each in self.history.proposals if not (each.refused or each.again)]
        for proposal in taken[:1]:  # though it be done: else results of other data or versions would be mixed
            self._same(proposal)
        for proposal in taken:
            self._again(proposal)
        self.publish(self.cells())

    def _same(self, proposal: Proposal) -> Sequence[Trial]:
        """The trials of a proposal, planned anew.

        Raises:
            UserError: they are others by now.
        """
        trials = self._plan(proposal.options)
        if tuple(trial.id for trial in trials) != proposal.trials:
            what, rule = f"the trials of search {self.suite.name!r}", "of the data and versions it began with"
            raise must(what, rule, "others", f"Bring the old ones back, or delete {self.record.path} to begin anew.")
        return trials

    def _again(self, proposal: Proposal) -> None:
        """Have what is left of a proposal done."""
        state = self.history.state(proposal)
        left = [trial for trial in proposal.trials if not self.history.done(trial)]
        if state == "done":
            return
        if state == "pruned":
            for index, trial in enumerate(proposal.trials):
                if trial not in self.history.results and proposal.reaches(index):
                    self._settle(trial)
            return
        trials = self._same(proposal)
        self._planned |= {trial.id: trial for trial in trials}
        done = proposal.trials.index(left[0])
        if self.history.in_turn and done:  # it may have been killed before it ranked what it was told
            self._next_seed(proposal, done - 1)
        else:
            wanted = [trial for trial in trials if trial.id in left]
            self._waiting += wanted[:1] if self.history.in_turn else wanted

    def _settle(self, trial: str) -> None:
        """Tell of a trial that was given up whose driver was killed before that was said."""
        folder = self.planner.out / "trials" / trial
        if Record(folder).status == "unfinished":
            write_json(folder / PRUNED, {"why": "it was not among the best at a rung of its search"})
        self._tell(trial, Record(folder))

    # what comes

    def ask(self, n: int) -> Sequence[Trial]:
        found: list[Trial] = []
        while len(found) < n and not self.trouble and (self._waiting or self._propose()):
            if self._waiting:
                found += self._with_needs(self._waiting.popleft())
        return found

    def _propose(self) -> bool:
        """Make the next proposal; False where there is none."""
        if not self._may_propose():
            return False
        history, number = self.history, len(self.history.proposals)
        if self.search.method == "tpe":
            ways: list[Direction] = [metric.direction for metric in self.search.objectives]
            options = suggest(self.search.space, self.search.seed, number, list(history.known()), ways)
        else:
            options = draw(self.search.space, self.search.seed, number)
        try:
            trials, refused = self._plan(options), ""
        except UserError as error:
            trials, refused = [], str(error)
            say(f"engram: proposal {number} cannot be: {refused.splitlines()[0]}")
        self._write(Asked(proposal=number, options=options, trials=[trial.id for trial in trials], refused=refused))
        proposal = history.proposals[-1]
        if not refused and not proposal.again:
            self._planned |= {trial.id: trial for trial in trials}
            self._waiting += trials[:1] if history.in_turn else trials
        return True

    def _may_propose(self) -> bool:
        history, search = self.history, self.search
        self._clock()
        return not (
            history.fruitless >= FRUITLESS
            or (search.trials is not None and history.work + self._seeds > search.trials + CLOSE)
            or (search.hours is not None and history.seconds >= 3600 * search.hours)
            or (search.joules is not None and history.joules >= search.joules)
        )

    def _plan(self, options: Mapping[str, Any]) -> list[Trial]:
        suite = self.suite
        given = [suite.given(self.registry, options, seed) for seed in suite.seeds]
        return [self.planner.add(suite.experiment, each) for each in given]

    def _with_needs(self, trial: Trial) -> list[Trial]:
        """A trial behind those that it needs and that were not handed out."""
        if trial.id in self._handed:
            return []
        self._handed.add(trial.id)
        needs = [self.planner.trials[need] for need in trial.needs if need in self.planner.trials]
        return [*(each for need in needs for each in self._with_needs(need)), trial]

    # what came of it

    def tell(self, trial: Trial, record: Record) -> None:
        self._tell(trial.id, record)

    def _tell(self, trial: str, record: Record) -> None:
        place = self.history.places.get(trial)
        if place is None:
            return  # others needed it
        proposal, index = place
        status = record.status if record.status in ("done", "pruned") else "failed"
        values: list[float | None] = []
        if status == "done":
            self._rank_new(trial, record, proposal, index)
            values = [plain(record.metrics.get(metric.name)) for metric in self.search.objectives]
            self._lacks(record)
        self._tails.pop(trial, None)
        self._write(Told(trial=trial, status=status, values=values))
        if status == "done" and self.history.in_turn:
            self._next_seed(proposal, index)

    def _next_seed(self, proposal: Proposal, index: int) -> None:
        done = index + 1
        if done == len(proposal.trials):
            return
        values = [row[0] for row in self.history.values(proposal, done)]
        self._rank(proposal, done / self._seeds, math.fsum(values) / done)
        if proposal.given_up is None:
            self._waiting.append(self._planned[proposal.trials[done]])

    def _lacks(self, record: Record) -> None:
        lacks = [metric.name for metric in self.search.objectives if metric.name not in record.metrics]
        if lacks and not self.trouble:
            known = ", ".join(sorted(record.metrics))
            step = f"It reports {known}. Give what makes it report that (validation images, say), or choose another."
            self.trouble = str(must("search.objective", f"reported by trial {record.trial}", ", ".join(lacks), step))

    def look(self, trial: Trial, record: Record) -> str:
        self._clock()
        place = self.history.places.get(trial.id)
        if place is None or not self.history.in_turn:
            return ""
        self._rank_new(trial.id, record, *place)
        proposal = place[0]
        if proposal.given_up is None:
            return ""
        said = f"{self.search.objectives[0].name} {proposal.rungs[-1]:.4g} after {proposal.given_up:.0%} of its work"
        return f"{said} was not among the best of {self.search.factor} at rung {len(proposal.rungs)}"

    def _rank_new(self, trial: str, record: Record, proposal: Proposal, index: int) -> None:
        """See whether what a trial has measured since the last look takes its proposal to a rung."""
        shares = self.search.shares
        if proposal.given_up is not None or len(proposal.rungs) >= len(shares):
            return
        name = self.search.objectives[0].name
        lines = [line for line in self._tails.setdefault(trial, Tail(record.folder)).new() if line.name == name]
        if not lines:
            return
        said = Progress.read(record.folder)
        total = said.total if said else max(line.step for line in lines) if record.status == "done" else math.inf
        before = [row[0] for row in self.history.values(proposal, index)]
        for line in lines:
            share = (index + min(1.0, line.step / total)) / self._seeds
            self._rank(proposal, share, math.fsum([*before, line.value]) / (index + 1))

    def _rank(self, proposal: Proposal, share: float, value: float) -> None:
        """Note the rungs that a proposal has come to, up to the one at which it is given up."""
        shares, search = self.search.shares, self.search
        while proposal.given_up is None and len(proposal.rungs) < len(shares):
            rung = len(proposal.rungs)
            if share < shares[rung] - CLOSE:
                return
            kept = goes_on(value, self.history.at_rung(rung), search.factor, search.objectives[0].direction)
            self._write(Ranked(proposal=proposal.number, rung=rung, value=plain(value), share=share, kept=kept))

    @property
    def exhausted(self) -> bool:
        if self.trouble:
            return True
        if self._waiting or self._may_propose():
            return False
        return not self.history.in_turn or not self.history.open

    @property
    def total(self) -> int | None:
        if self.search.trials is None or self.history.in_turn or not self._handed:
            return None
        whole = self.search.trials - self.search.trials % self._seeds
        return whole + sum(trial not in self._planned for trial in self._handed)

    @property
    def _seeds(self) -> int:
        return len(self.suite.seeds)

    # what is known of it

    def cells(self) -> list[dict[str, Any]]:
        """The trials of the proposals, each with its options and seed, as plan.json has them."""
        return [
            {
                "trial": proposal.trials[index],
                "experiment": self.suite.experiment,
                "options": dict(proposal.options),
                "seed": self.suite.seeds[index],
            }
            for proposal, index in self.history.cells()
        ]

    def _clock(self) -> None:
        """Note the time that went by, now and then, so that a kill loses little of it."""
        spent = self._spent()
        self.history.seconds, self.history.joules = spent["seconds"], spent["joules"]
        if self.clock() - self._noted >= CLOCK_SECONDS:
            self._write(Clocked())

    def _spent(self) -> dict[str, float]:
        joules = self._joules + (self.meter.joules() if self.meter else 0.0)
        return {"seconds": round(self._before + self.clock() - self._begun, 3), "joules": round(joules, 3)}

    def _write(self, event: Event) -> None:
        whole = type(event)(**{**vars(event), **self._spent()})
        self.record.append(whole)
        self.history.add(whole)
        self._noted = self.clock()

    @property
    def ended(self) -> str:
        """Why no more is proposed, in words; "" while more is."""
        history, search = self.history, self.search
        if self.trouble:
            return "its trials do not report what is searched for"
        if history.fruitless >= FRUITLESS:
            return f"the last {FRUITLESS} proposals brought nothing new: the space has no more"
        if search.hours is not None and history.seconds >= 3600 * search.hours:
            return f"its {search.hours:g} hours are over"
        if search.joules is not None and history.joules >= search.joules:
            return f"its {search.joules:g} joules are used"
        return "" if self._may_propose() else f"its {search.trials} trials are done"

    def close(self) -> None:
        """Note what was spent to the end; no driver works on the search any more."""
        with contextlib.suppress(OSError):  # on a full disk a moment is forgotten
            self._write(Clocked())
            self.publish(self.cells())
        self.record.close()


def definition(suite: Suite) -> dict[str, Any]:
    """What two searches that may share a record have in common: all but the budget."""
    search = suite.search
    assert search is not None
    return {
        "experiment": suite.experiment,
        "options": {name: repr(value) for name, value in sorted(suite.options.items())},
        "seeds": list(suite.seeds),
        "method": search.method,
        "objective": [metric.name for metric in search.objectives],
        "space": {axis.name: f"{axis.values!r} {dict(axis.when)!r}" for axis in search.space},
        "seed": search.seed,
        **({"factor": search.factor, "rungs": search.rungs} if search.shares else {}),
    }


def _meter(search: Search) -> Meter | None:
    """What measures joules, where the search has a budget of them.

    Raises:
        UserError: nothing here does.
    """
    if search.joules is None:
        return None
    meter = Meter()
    if not meter.sources:
        rule, got = "left out where no meter can be read", f"{search.joules:g}, and neither RAPL nor NVML can be"
        raise must("search.joules", rule, got, "Read /sys/class/powercap as root, or give hours.")
    return meter
