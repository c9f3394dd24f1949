"""Runs planned trials to their end: asks which there are, has them started, feeds the tracking store."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from engram.benchmarks.driving.feeder import PATIENCE_SECONDS, PAUSE_SECONDS, Feeder
from engram.benchmarks.driving.launch.contract import Launcher
from engram.benchmarks.driving.launch.local import LocalLauncher
from engram.benchmarks.driving.loop import Drive
from engram.benchmarks.driving.orders import Orders
from engram.benchmarks.driving.proposing.contract import Proposer
from engram.benchmarks.driving.proposing.grid import Grid
from engram.benchmarks.driving.setting import PlanOutcome, RunSetting
from engram.benchmarks.driving.view import open_view
from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.records.layout import DRIVER, sweep_dir
from engram.benchmarks.records.stored import write_json

IMPATIENT_SECONDS = 5.0  # what the tracking store gets after ^C


def drive(trials: Sequence[Trial], setting: RunSetting, sweep: str | None, axes: Sequence[str] = ()) -> PlanOutcome:
    """Run what is not done yet. Trials come in an order in which each follows those it needs.

    ``axes`` are the options that the plan varies; their values are said of every trial.
    """
    return propose(Grid(trials, axes), setting, sweep)


def propose(proposer: Proposer, setting: RunSetting, sweep: str | None) -> PlanOutcome:
    """Run whatever is proposed, until that is all done, failed or given up, or a signal ends it."""
    outcome = PlanOutcome()
    feeder = Feeder(setting.out, setting.tracking_uri, [], sweep)
    launcher = launcher_for(setting, proposer.total)
    folder = None if sweep is None else sweep_dir(setting.out, sweep)
    if folder is not None and (setting.ray is not None or setting.slurm is not None):
        setting = replace(setting, sweep=folder)
    try:
        if folder is not None:
            kind = type(launcher).__name__.removesuffix("Launcher").lower()
            write_json(folder / DRIVER, {"where": f"{socket.gethostname()}, {kind}"})
        with open_view(proposer.total) as view, _signals(outcome):
            feeder.start()
            Drive(proposer, launcher, view, outcome, setting, feeder.know, Orders(folder)).run()
    finally:
        launcher.close()
    patience = IMPATIENT_SECONDS if outcome.signal is not None else PATIENCE_SECONDS
    try:
        outcome.untold = feeder.finish(PAUSE_SECONDS if outcome.halted else patience)
    except KeyboardInterrupt:  # somebody has waited long enough: no trial is touched by it
        outcome.untold = "it was asked to stop"
    outcome.refused = dict(feeder.sink.refused)
    return outcome


def launcher_for(setting: RunSetting, trials: int | None) -> Launcher:
    """What runs the trials of a plan, of which there are so many."""
    if setting.ray is not None:
        from engram.benchmarks.driving.launch.ray import RayLauncher

        return RayLauncher(setting.ray, setting.out, setting.workers, setting.resources)
    if setting.slurm is not None:
        from engram.benchmarks.driving.launch.slurm import SlurmLauncher

        return SlurmLauncher(setting.out, setting.slurm, setting.workers)
    workers = setting.workers or 1
    return LocalLauncher(workers if trials is None else max(1, min(workers, trials)))


@contextmanager
def _signals(outcome: PlanOutcome) -> Iterator[None]:
    """Note SIGINT and SIGTERM in the outcome; the loop acts on them. A second one has the workers killed."""

    def note(number: int, frame: FrameType | None) -> None:
        outcome.signal = -number if outcome.signal is not None else number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        outcome.signal = None if outcome.signal is None else abs(outcome.signal)
        for number, handler in before.items():
            signal.signal(number, handler)
