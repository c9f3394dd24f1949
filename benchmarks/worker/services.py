"""What the worker lends to an experiment: `engram.backbone.contract.Services`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from engram.backbone.contract import Row, Scalar
from engram.benchmarks.drawing.tables import render
from engram.benchmarks.records.pace import Progress
from engram.benchmarks.worker.ledger import Ledger
from engram.benchmarks.worker.provenance import state_facts

PROGRESS_SECONDS = 0.2


@dataclass
class TrialServices:
    """Everything goes to files in the trial's folder; whoever started the trial reads them there."""

    trial_dir: Path
    data_root: Path
    download: bool
    wanted_device: str
    inputs: Mapping[str, Path]
    ledger: Ledger | None
    """None in a process that writes nothing."""
    _shown: float = field(default=0.0, init=False)
    _said: Progress | None = field(default=None, init=False)

    @cached_property
    def device(self) -> str:
        """``cpu`` or ``cuda``; what auto means is found out on first use, as an experiment may need no torch.

        Raises:
            UserError: cuda was asked for and is not there.
        """
        from engram.backbone.hardware import choose_device

        return choose_device(self.wanted_device)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        assert self.ledger is not None
        self.ledger.log(step, metrics)

    def progress(self, done: float, total: float, text: str = "") -> None:
        now, clock = time.monotonic(), time.time()
        said = Progress(done, total, text, clock, clock, done) if self._said is None else self._said
        self._said = said.next(done, total, text, clock)
        if now - self._shown >= PROGRESS_SECONDS or done >= total:
            self._shown = now
            self._said.write(self.trial_dir)

    def provenance(self, **facts: Scalar) -> None:
        state_facts(self.trial_dir / "provenance.json", facts)

    def table(self, title: str, rows: Sequence[Row]) -> None:
        print(render(title, rows), flush=True)
        with (self.trial_dir / "tables.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"title": title, "rows": [dict(row) for row in rows]}) + "\n")


class SilentServices(TrialServices):
    """Those of a process beside the one that writes."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        return

    def progress(self, done: float, total: float, text: str = "") -> None:
        return

    def provenance(self, **facts: Scalar) -> None:
        return

    def table(self, title: str, rows: Sequence[Row]) -> None:
        return
