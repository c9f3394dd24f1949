"""What the user sees while trials run: progress bars on a terminal, lines elsewhere; always on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from engram.backbone.options.spelling import by_flag
from engram.benchmarks.drawing.numbers import about
from engram.benchmarks.drawing.tables import render, terminal_width
from engram.benchmarks.planning.naming import short_words, words
from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.records.inside import open_inside
from engram.benchmarks.records.pace import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Live
    from rich.progress import TaskID

DRAW_SECONDS = 0.125


class ProgressView:
    """Lines as trials start and end. `open_view` gives the one that fits the terminal.

    ``left`` is what the driver thinks is left of the whole plan, in seconds; None: it cannot tell.
    """

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.left: float | None = None
        self._told: tuple[str, ...] = ()
        self._common: set[str] | None = None  # words that all trials have that are known
        self._counted = self._over = 0
        self._done = self._failed = 0
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

    def knows(self, trial: Trial, told: Iterable[str], total: int | None) -> None:
        """A trial is there, of ``total`` as far as that is known; ``told``: options whose values are said of it."""
        self._told, self.total = tuple(told), total
        said = set(self._words(trial))
        self._common = said if self._common is None else self._common & said

    def skipped(self) -> None:
        """A trial was done before."""
        self._counted += 1
        self._over += 1
        self._done += 1

    def again(self, trial: Trial, why: str) -> None:
        """A trial whose process was lost will be started again."""
        self._counted -= 1
        self.line(f"{trial.id}  {why}")

    def _words(self, trial: Trial) -> list[str]:
        return words(trial.experiment, by_flag(trial.config), self._told)

    def _short(self, trial: Trial) -> str:
        """What tells it from the others, where it is narrow."""
        common = () if self.total == 1 else self._common or ()
        return " ".join(short_words(trial.experiment, by_flag(trial.config), self._told, common))

    def started(self, trial: Trial) -> None:
        self._begun[trial.id] = time.monotonic()
        self._counted += 1
        tables = trial.folder / "tables.jsonl"
        self._read[tables] = tables.stat().st_size if tables.exists() else 0  # what an earlier attempt said was shown
        self.line(f"{trial.id}  started{self._which(self._counted)}  {' '.join(self._words(trial))}")

    def ended(self, trial: Trial, status: str) -> None:
        self._tables(trial)
        took = f"after {time.monotonic() - self._begun[trial.id]:.1f} s"
        if status == "stopped":  # it is not over, and nobody waits for the others
            self.line(f"{trial.id}  {status}  {took}")
            return
        self._over += 1
        self._done += status == "done"
        self._failed += status not in ("done", "pruned")
        left = f", about {about(self.left)} left" if self.left is not None and self._over != self.total else ""
        self.line(f"{trial.id}  {status}{self._which(self._over)}  {took}{left}")

    def dropped(self) -> None:
        """A trial will not be run: one that it needs failed."""
        self._counted += 1
        self._over += 1
        self._failed += 1

    def _which(self, number: int) -> str:
        return "" if self.total == 1 else f" {number}" if self.total is None else f" {number} of {self.total}"

    def progress(self, trial: Trial, said: Progress | None) -> None:
        """Show what the trial has written since; ``said`` is its progress."""
        self._tables(trial)

    def draw(self) -> None:
        """Show what changes with time; called often."""

    def _tables(self, trial: Trial) -> None:
        path = trial.folder / "tables.jsonl"
        try:
            file = open_inside(trial.folder, path.name)
        except OSError:
            return  # nothing is said yet
        with file:
            file.seek(self._read.get(path, 0))
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                self._read[path] = self._read.get(path, 0) + len(raw)
                table = json.loads(raw)
                text = render(table["title"], table["rows"], terminal_width(errors=True))
                if text not in self._shown:
                    self._shown.add(text)
                    self.line(text)


class Bars(ProgressView):
    """One bar per running trial, below one for the whole plan.

    Drawn by the driver's own thread: with a thread of rich's beside it, the two at times disagree on how many lines
    there are to erase, and the bar of a finished trial stays.
    """

    def __init__(self, total: int | None, console: Console | None = None) -> None:
        super().__init__(total)
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Live
        from rich.table import Column

        console = console or Console(stderr=True)
        narrow = Column(no_wrap=True)
        columns = (
            SpinnerColumn(),
            # the only one that gives way, to further lines: what tells the trials apart is never cut off
            TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
            BarColumn(bar_width=max(8, console.width // 8), table_column=narrow),
            TextColumn("{task.fields[text]}", markup=False, table_column=narrow),
            TextColumn("{task.fields[left]}", markup=False, table_column=narrow),
        )
        self._live: Live = Live(*columns, console=console, transient=True, auto_refresh=False)
        self._bars: dict[str, TaskID] = {}
        self._drawn = 0.0
        self._whole = self._live.add_task("", total=self.total, text="", left="")
        self._live.update(self._whole, visible=self.total != 1)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def line(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def started(self, trial: Trial) -> None:
        super().started(trial)
        self._bars[trial.id] = self._live.add_task(self._short(trial), total=None, text="starting", left="")

    def again(self, trial: Trial, why: str) -> None:
        self._live.remove_task(self._bars.pop(trial.id))
        super().again(trial, why)

    def ended(self, trial: Trial, status: str) -> None:
        self._live.remove_task(self._bars.pop(trial.id))
        super().ended(trial, status)

    def progress(self, trial: Trial, said: Progress | None) -> None:
        super().progress(trial, said)
        if said is not None:
            left = _left(said.left())
            self._live.update(self._bars[trial.id], completed=said.done, total=said.total, text=said.text, left=left)

    def draw(self) -> None:
        if time.monotonic() - self._drawn < DRAW_SECONDS:
            return
        self._drawn = time.monotonic()
        given_up = self._over - self._done - self._failed
        said = f"{self._done} done" if self.total is None else f"{self._done} of {self.total} done"
        said += f", {given_up} pruned" if given_up else ""
        said += f", {self._failed} failed" if self._failed else ""
        self._live.update(self._whole, total=self.total, completed=self._over, description=said, left=_left(self.left))
        self._live.refresh()


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{about(seconds)} left"


def open_view(total: int | None) -> ProgressView:
    """The view for a plan of so many trials; None: nobody knows yet."""
    return Bars(total) if sys.stderr.isatty() else ProgressView(total)
