"""Steps an experiment, and keeps what a resume needs: its state, the clock and the random generators."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.backbone.contract import Result
from engram.backbone.errors import must
from engram.benchmarks.records.identity import Origins
from engram.benchmarks.records.layout import STATES
from engram.benchmarks.records.lines import LEDGER, read_ledger
from engram.benchmarks.worker.services import TrialServices
from engram.benchmarks.worker.stopping import Stop

if TYPE_CHECKING:
    from engram.backbone.ranks import Ranks

CHECKPOINT_SECONDS = 20.0


def _checkpoint_seconds() -> float:
    text = os.environ.get("ENGRAM_CHECKPOINT_SECONDS", str(CHECKPOINT_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        remedy = f"Unset it: the default is {CHECKPOINT_SECONDS:g}."
        raise must("ENGRAM_CHECKPOINT_SECONDS", "a number of seconds, 0 or more", text, remedy)
    return seconds


class Loop:
    """Steps an experiment, with checkpoints, until it is done or told to stop.

    Of several processes all step and stop together, and the first one alone writes and finishes.
    """

    def __init__(
        self, experiment: Any, services: TrialServices, stop: Stop, origins: Origins, ranks: Ranks | None = None
    ) -> None:
        self.experiment, self.services, self.stop, self.origins = experiment, services, stop, origins
        self.ranks, self.leads = ranks, ranks is None or ranks.leads
        self.folder = services.trial_dir / STATES
        self.every = _checkpoint_seconds()
        self.steps, self.seconds = 0, 0.0

    def run(self) -> Result | None:
        """The result, nothing but in the first process; None when it was stopped (its state is in the checkpoint)."""
        seeded = "torch" in sys.modules
        state = self.experiment.start()
        if "torch" in sys.modules and not seeded:
            raise RuntimeError("an experiment must import torch at the top of its module, or the seed comes too late")
        if self.leads and not self.origins.settled:  # they may have been downloaded by now
            self.origins.require()
        self._restore(state)
        begun = saved = time.monotonic()
        before = self.seconds
        stopping = self._stopping()
        while not stopping:
            more = self.experiment.step(state)
            self.steps += 1
            self.seconds = before + time.monotonic() - begun
            if not more:
                break
            stopping = self._stopping()  # looked at once: a signal after this line gets its checkpoint a step later
            if self.leads and (stopping or time.monotonic() - saved >= self.every):
                self._save(state)
                saved = time.monotonic()
        if self.ranks is not None:
            self.ranks.leave()
        if stopping:
            return None
        if not self.leads:
            return Result(metrics={})
        result = self.experiment.finish(state)
        self.origins.require(done=True)  # again: sets that are streamed are read all the time
        self.seconds = before + time.monotonic() - begun
        return result

    def _stopping(self) -> bool:
        return self.stop.asked if self.ranks is None else self.ranks.any(self.stop.asked)

    def _save(self, state: Any) -> None:
        from engram.backbone.saved.states import save_state
        from engram.backbone.seeding import random_state

        saved = {"experiment": self.experiment.state_dict(state), "seconds": self.seconds, "random": random_state()}
        ledger = self.services.ledger
        assert ledger is not None  # it leads
        ledger.keep()
        save_state(self.folder, self.steps, saved, logged=ledger.count)

    def _restore(self, state: Any) -> None:
        if not self.folder.is_dir():
            return
        from engram.backbone.saved.states import load_latest
        from engram.backbone.seeding import set_random_state

        found = load_latest(self.folder)
        if found is not None:
            self.steps, saved = found
            try:
                self.experiment.load_state_dict(state, saved["experiment"])
                self.seconds = saved["seconds"]
                set_random_state(saved["random"])
            except Exception as error:  # a stranger's state may hold anything
                got = f"{type(error).__name__}: {error}".splitlines()[0]
                remedy = "Use that version, or remove the folder to begin the trial anew."
                raise must(f"the checkpoint in {self.folder}", "of this version of engram", got, remedy) from error
            if self.leads:
                print(f"resumed at step {self.steps}", flush=True)


def drop_states_ahead(folder: Path) -> None:
    """Remove checkpoints that know of measurements that the ledger has lost: nobody would log these again.

    Before the ledger is mended, which makes that loss invisible.
    """
    if not (folder / STATES).is_dir():
        return
    from engram.backbone.saved.states import drop_states

    drop_states(folder / STATES, beyond=read_ledger(folder / LEDGER).whole)
