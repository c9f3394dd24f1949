"""Trials as jobs of Slurm. They outlive the driver: one that is started again finds them by their names."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engram.benchmarks.driving.launch.contract import Ended, Resources
from engram.benchmarks.driving.launch.jobs import Jobs, LocalJobs, Seen, SlurmJobs, Unanswered, job_name, submitit
from engram.benchmarks.driving.launch.process import last_words, logged
from engram.benchmarks.records.layout import BUSY
from engram.benchmarks.records.trials import alive
from engram.benchmarks.saying import say
from engram.benchmarks.worker.loop import STATES
from engram.benchmarks.worker.stopping import STOPPED

LOCAL = "local"
AT_ONCE = 100
"""Jobs at once where nobody says how many."""
POLL_SECONDS = 2.0
APPEARS_SECONDS = 30.0  # how long Slurm may not know a job that it took, and a file system not show a result


@dataclass
class Started:
    """A trial's job. ``asked``: it was told to leave."""

    job: str
    resources: Resources
    logged: int
    state: str
    since: float = field(default_factory=time.monotonic)
    asked: bool = False
    over: float = 0.0


class SlurmLauncher:
    """At most ``workers`` jobs at once in a partition, one a trial; ``local`` stands for processes of this machine."""

    def __init__(self, out: Path, partition: str, workers: int | None) -> None:
        self.workers = workers or AT_ONCE
        self._files = out / "slurm"
        self._jobs: Jobs = LocalJobs(self._files) if partition == LOCAL else SlurmJobs(self._files, partition)
        self._running: dict[Path, Started] = {}
        self._ended: dict[Path, Ended] = {}
        self._to_end: dict[str, bool] = {}  # jobs that are to end, by force or not, as Slurm has yet to hear
        self._looked = 0.0
        self._silent = ""
        self._found = {seen.name: job for job, seen in self._look().items() if not seen.over}

    def free(self) -> int:
        return self.workers - len(self._running)

    def start(self, folder: Path, resources: Resources) -> None:
        """Submit a trial's job; where one of an earlier driver waits or runs, that is taken on."""
        if (job := self._found.pop(job_name(folder), None)) is None:
            try:
                job = self._jobs.submit(folder, resources)
            except Unanswered as error:
                self._ended[folder] = Ended(None, f"Slurm took no job ({error})")
                return
        else:
            say(f"{folder.name}  is job {job} already")
        self._running[folder] = Started(job, resources, logged(folder), _newest_state(folder))

    def finished(self) -> Mapping[Path, Ended]:
        ended, self._ended = self._ended, {}
        if self._running and time.monotonic() - self._looked > POLL_SECONDS:
            seen = self._look()
            self._looked = time.monotonic()
            self._pass_on()
            if not self._silent:
                for folder, started in list(self._running.items()):
                    if (how := self._judge(folder, started, seen.get(started.job))) is not None:
                        del self._running[folder]
                        self._tidy(started.job)
                        ended[folder] = how
        for folder in ended:
            self._running.pop(folder, None)
        return ended

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def stop(self, folders: frozenset[Path] | None = None) -> None:
        self._end(folders, hard=False)

    def kill(self, folders: frozenset[Path] | None = None) -> None:
        self._end(folders, hard=True)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._files.rmdir()

    def _look(self) -> Mapping[str, Seen]:
        """All jobs; none where Slurm does not answer, which is said once."""
        try:
            seen = self._jobs.look()
        except Unanswered as error:
            if not self._silent:
                say(f"engram: Slurm does not say what became of its jobs ({error}); asking on")
            self._silent = str(error)
            return {}
        self._silent = ""
        return seen

    def _judge(self, folder: Path, started: Started, seen: Seen | None) -> Ended | None:
        """How a trial's job ended; None where it has not, or was submitted again."""
        if seen is None:
            if time.monotonic() - started.since < APPEARS_SECONDS and not isinstance(self._jobs, LocalJobs):
                return None
            seen = self._jobs.remember(started.job) or Seen("", "UNKNOWN")
        if not seen.over:
            return None
        code = seen.code if seen.state in ("COMPLETED", "FAILED") else _told(folder)
        if code is None and started.asked:
            code = STOPPED
        if code == 0 and not _shows(folder / "result.json"):  # on a shared file system it may come later
            started.over = started.over or time.monotonic()
            if time.monotonic() - started.over < APPEARS_SECONDS:
                return None
        if code == BUSY and alive(folder):  # its node was given up for lost, and works on
            return None
        cut_short = code == STOPPED or (code is None and seen.state in ("TIMEOUT", "PREEMPTED"))
        if not started.asked and (code == BUSY or (cut_short and _newest_state(folder) > started.state)):
            self._again(folder, started, seen)
            return self._ended.pop(folder, None)
        words = last_words(folder, started.logged) if code else ""
        return Ended(code, words if code is not None else _lost(started.job, seen))

    def _again(self, folder: Path, started: Started, seen: Seen) -> None:
        """A job that came to the end of its time, or had to make room, goes on in another one: it has got on."""
        self._tidy(started.job)
        say(f"{folder.name}  job {started.job} ended as {seen.state}; another one goes on from its checkpoint")
        self.start(folder, started.resources)

    def _end(self, folders: frozenset[Path] | None, *, hard: bool) -> None:
        meant = [each for folder, each in self._running.items() if folders is None or folder in folders]
        for each in meant:
            each.asked = True
            self._to_end[each.job] = hard
        self._pass_on()

    def _pass_on(self) -> None:
        """Tell Slurm which jobs are to end, until it has taken it up: one that does not answer is asked again."""
        running = {each.job for each in self._running.values()}
        self._to_end = {job: hard for job, hard in self._to_end.items() if job in running}
        for hard in set(self._to_end.values()):
            jobs = [job for job, asked in self._to_end.items() if asked is hard]
            try:
                self._jobs.end(jobs, hard=hard)
            except Unanswered as error:
                say(f"engram: Slurm did not pass it on, and is asked again ({error})")
            else:
                for job in jobs:
                    del self._to_end[job]

    def _tidy(self, job: str) -> None:
        """Remove what submitit wrote for a job that is over."""
        for path in self._files.glob(f"{job}_*"):
            path.unlink(missing_ok=True)
        for path in self._files.glob(".submission_file_*.sh"):
            if not path.exists():  # a link to what was just removed
                path.unlink(missing_ok=True)


def check(partition: str, resources: Resources) -> None:
    """Refuse a partition that takes no such jobs.

    Raises:
        UserError: submitit is not installed, there is no Slurm here, or it refuses them.
    """
    if partition == LOCAL:
        submitit()
    else:
        SlurmJobs(Path(), partition).require(resources)


def _newest_state(folder: Path) -> str:
    """The last checkpoint by its name, which begins with its step; "" where there is none."""
    return max((path.name for path in (folder / STATES).glob("state-*.json")), default="")


def _told(folder: Path) -> int | None:
    """The exit code that a trial's folder speaks of."""
    return 0 if _shows(folder / "result.json") else 1 if _shows(folder / "error.json") else None


def _shows(path: Path) -> bool:
    """Whether a file is there, in a folder that is listed anew: a network file system remembers what was not there."""
    with contextlib.suppress(OSError), os.scandir(path.parent) as found:
        return any(each.name == path.name for each in found)
    return False


def _lost(job: str, seen: Seen) -> str:
    where = f" on {seen.node}" if seen.node and seen.node != "(null)" else ""
    return f"its job {job} ended as {seen.state}{where}"
