"""What the driver asks of whoever says which trials there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.records.trials import Record


class Proposer(Protocol):
    """Says which trials to run, and is told of all that ended. A grid is one; a search is another.

    The driver is its only caller, from one thread. What it has proposed and was told of is on the disk before `ask`
    returns, as far as it matters: after a kill the same proposer, made anew, goes on.
    """

    axes: tuple[str, ...]
    """The options that its trials differ in; their values are said of every trial."""

    @property
    def total(self) -> int | None:
        """How many trials it will have proposed in the end, those that others need included; None: not known."""
        ...

    def ask(self, n: int) -> Sequence[Trial]:
        """The next trials, about ``n``, each after those that it needs; fewer, or none, where it waits to be told.

        One that is done already may be among them: it is told of at once.
        """
        ...

    def tell(self, trial: Trial, record: Record) -> None:
        """A trial is over: ``record`` says what came of it (done, failed, pruned)."""
        ...

    def look(self, trial: Trial, record: Record) -> str:
        """Why a running trial should be given up, by what its ledger says so far; "" to let it go on."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether `ask` will have nothing more, whatever it is told."""
        ...
