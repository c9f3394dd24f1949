"""Feeds the tracking store while trials run. Trouble there costs nothing but a line: ledgers keep everything."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

from engram.backbone.errors import UserError
from engram.benchmarks.records.layout import sweep_dir
from engram.benchmarks.saying import say
from engram.benchmarks.sink import Sink
from engram.benchmarks.worker.machine import Watch

PAUSE_SECONDS = 2.0
LEISURE = 4.0  # times our processor time while things were told passes before more are: trials need the processor more
PATIENCE_SECONDS = 45.0  # a locked database comes free
SERVER_PATIENCE_SECONDS = 6.0  # a server that is down seldom comes back while somebody waits


class Feeder:
    """A thread beside the driver; `finish` makes the last attempt."""

    def __init__(self, out: Path, tracking_uri: str | None, trials: Iterable[str], sweep: str | None) -> None:
        self.sink = Sink(out, tracking_uri)
        self.trials, self.sweep = dict.fromkeys(trials), sweep
        self._watch = None if sweep is None else Watch(sweep_dir(out, sweep), str(sweep_dir(out, sweep)))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="feeder", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if self._watch is not None:
            self._watch.start()

    def know(self, trial: str) -> None:
        """There is something to tell of this trial from now on."""
        self.trials[trial] = None

    def _feed(self) -> None:
        pause = PAUSE_SECONDS
        while not self._stop.wait(pause):
            begun = time.process_time()
            try:
                self.sink.follow(list(self.trials), self.sweep)
            except UserError:
                return  # the last attempt says it once
            pause = max(PAUSE_SECONDS, LEISURE * (time.process_time() - begun))

    def finish(self, patience: float = PATIENCE_SECONDS) -> str:
        """Complete the store within ``patience`` seconds; "" or why that was not possible, in one line.

        What the store does not take has one more try, and stays in ``sink.refused``.
        """
        begun = time.monotonic()
        if self._watch is not None:
            self._watch.stop()
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(patience)
        self.sink.refused.clear()
        deadline = begun + patience
        if not self.sink.database:
            deadline = min(deadline, time.monotonic() + SERVER_PATIENCE_SECONDS)
        why = "the tracking store does not answer"
        while self.sink.needs_sync(list(self.trials), self.sweep):
            if self._thread.is_alive():
                return why
            try:
                report = self.sink.sync(list(self.trials), self.sweep, now=True)
            except UserError as error:
                return str(error)
            if report.ok:
                return ""
            if report.lasting:
                return report.message
            news, why = report.message != why, report.message
            if time.monotonic() + PAUSE_SECONDS >= deadline:
                return why
            if news:
                say(f"waiting for MLflow, {deadline - time.monotonic():.0f} s at most: {why}")
            time.sleep(PAUSE_SECONDS)
        return ""
