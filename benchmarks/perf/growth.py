"""What a driver costs as workers grow to 10,000: the real loop, files and records, with workers that only pretend.

They write what a worker writes (progress, a ledger, a result), which is not counted. Every trial is started, looked at
and ended; nothing sleeps, so that the time of the processor is all there is. The peer of each row is the same with ten
workers: how far the cost of a trial grows.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from engram.benchmarks.commands.run import planner_for
from engram.benchmarks.driving import loop
from engram.benchmarks.driving.launch.contract import Ended, Resources
from engram.benchmarks.driving.proposing.grid import Grid
from engram.benchmarks.driving.setting import PlanOutcome, RunSetting
from engram.benchmarks.driving.view import ProgressView
from engram.benchmarks.perf.harness import Row
from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.plugin import discover
from engram.benchmarks.records.lines import LEDGER, Line, digest, encoded
from engram.benchmarks.records.pace import Progress
from engram.benchmarks.records.stored import write_json

WORKERS = (10, 100, 1_000, 10_000)
AT_LEAST = 1_000
"""Trials of one measurement."""


class Pretending:
    """Ends the trials in the order in which they were started, a tenth of those that run at a time."""

    def __init__(self, workers: int, trials: Mapping[Path, Trial]) -> None:
        self.workers, self._trials = workers, trials
        self._running: deque[Path] = deque()
        self.seconds = 0.0
        """What pretending took itself."""

    @contextlib.contextmanager
    def _uncounted(self) -> Iterator[None]:
        begun = time.process_time()
        yield
        self.seconds += time.process_time() - begun

    def free(self) -> int:
        return self.workers - len(self._running)

    def start(self, folder: Path, resources: Resources) -> None:
        with self._uncounted():
            now = time.time()
            Progress(1, 10, "epoch 1 of 10", now, now - 1, 0).write(folder)
            (folder / LEDGER).write_bytes(encoded(Line(1, 1, "train/loss", 1.0), 0))
            self._running.append(folder)

    def finished(self) -> Mapping[Path, Ended]:
        with self._uncounted():
            count = max(1, len(self._running) // 10) if self._running else 0
            ended = [self._running.popleft() for _ in range(count)]
            for folder in ended:
                self._finish(folder)
        return dict.fromkeys(ended, Ended(0))

    def _finish(self, folder: Path) -> None:
        trial = self._trials[folder]
        plain = {
            "experiment": trial.experiment,
            "trial": trial.id,
            "config": dict(trial.config),
            "metrics": {"test/accuracy": 0.5},
            "tables": {},
            "figures": {},
            "artifacts": {},
            "seconds": 1.0,
            "ledger": digest(folder / LEDGER),
            "content": trial.id,
        }
        write_json(folder / "provenance.json", {})
        write_json(folder / "result.json", plain)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def stop(self, folders: frozenset[Path] | None = None) -> None:
        pass

    kill = stop

    def close(self) -> None:
        pass


def cost(workers: int) -> float:
    """Milliseconds of the driver's processor time for a trial."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        how = RunSetting(out=out, data_root=out, argv=["sweep"])
        first = planner_for(discover(), how).add("backbone.train", {"backbone": "mlp"})
        count = max(AT_LEAST, workers)
        trials = [_another(first, seed, out) for seed in range(count)]
        launcher = Pretending(workers, {trial.folder: trial for trial in trials})
        outcome, said = PlanOutcome(), io.StringIO()
        with patch.object(loop, "POLL_SECONDS", 0.0), contextlib.redirect_stderr(said):
            begun = time.process_time()
            loop.Drive(Grid(trials), launcher, ProgressView(count), outcome, how, lambda trial: None).run()
            spent = time.process_time() - begun - launcher.seconds
    if outcome.failures or said.getvalue().count(" done ") != count:
        raise RuntimeError(f"a simulated sweep must end with {count} trials done; got {outcome}")
    return 1e3 * spent / count


def _another(first: Trial, seed: int, out: Path) -> Trial:
    name = f"{seed:016x}"
    return replace(first, id=name, folder=out / "trials" / name, config={**first.config, "seed": seed})


def measure() -> list[Row]:
    found = {workers: cost(workers) for workers in WORKERS}
    return [
        Row(
            name=f"runner/driver, a trial of {workers:,} workers",
            ours=found[workers],
            peer=found[WORKERS[0]],
            peer_name="with 10 workers",
            unit="ms",
            higher_is_better=False,
            n=1,
        )
        for workers in WORKERS[1:]
    ]
