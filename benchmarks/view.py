"""What the user sees while trials run: progress bars on a terminal, lines elsewhere; always on standard error."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from benchmarks.plan import Trial
from benchmarks.records import read_json
from benchmarks.tables import render

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

REFRESH_SECONDS = 0.5


class View:
    """Lines as trials start and end. `open_view` gives the one that fits the terminal."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}
        self._read: dict[Path, int] = {}
        self._shown: set[str] = set()  # ten trials of one network show its table once

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def started(self, trial: Trial, label: str) -> None:
        self._begun[trial.id] = time.monotonic()
        tables = trial.folder / "tables.jsonl"
        self._read[tables] = tables.stat().st_size if tables.exists() else 0  # what an earlier attempt said was shown
        self.line(f"{trial.id}  started  {label}")

    def ended(self, trial: Trial, status: str) -> None:
        self.refresh(trial)
        self.line(f"{trial.id}  {status}  after {time.monotonic() - self._begun[trial.id]:.1f} s")

    def refresh(self, trial: Trial) -> None:
        """Show what the trial has written since."""
        path = trial.folder / "tables.jsonl"
        if not path.exists() or path.stat().st_size == self._read.get(path):
            return
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                self._read[path] = self._read.get(path, 0) + len(raw)
                table = json.loads(raw)
                text = render(table["title"], table["rows"])
                if text not in self._shown:
                    self._shown.add(text)
                    self.line(text)


class Bars(View):
    """One bar per running trial."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
        self._progress: Progress = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def started(self, trial: Trial, label: str) -> None:
        super().started(trial, label)
        self._bars[trial.id] = self._progress.add_task(trial.id, total=None, text=label)

    def ended(self, trial: Trial, status: str) -> None:
        super().ended(trial, status)
        self._progress.remove_task(self._bars.pop(trial.id))

    def refresh(self, trial: Trial) -> None:
        super().refresh(trial)
        said: dict[str, Any] = read_json(trial.folder / "progress.json")
        if said and trial.id in self._bars:
            self._progress.update(
                self._bars[trial.id], completed=said["done"], total=said["total"], text=str(said["text"])
            )


def open_view() -> View:
    return Bars() if sys.stderr.isatty() else View()
