"""Jobs of Slurm, one a trial, and what stands in for them on a machine without it. All through submitit.

A job is the worker itself: submitit's process becomes it, so that Slurm's signals reach it and its exit code is that of
the job.
"""

from __future__ import annotations

import getpass
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any, Protocol

from engram.backbone.errors import UserError, must
from engram.benchmarks.driving.launch.contract import Resources
from engram.benchmarks.driving.launch.process import command, defaults
from engram.benchmarks.records.layout import LOG

ANSWER_SECONDS = 30.0  # how long a command of Slurm may take; one that takes longer is asked again later
NOTICE_SECONDS = 90  # how long before the end of its time a job is told
MARGIN_MINUTES = 2  # a trial that takes too long is ended by itself, and says so, before its job is
NAME = "engram"


class Unanswered(Exception):
    """Slurm did not answer, or refused; the words are its own."""


@dataclass(frozen=True)
class Seen:
    """A job: its trial by `job_name`, Slurm's word for its state, and its exit code as far as that is known."""

    name: str
    state: str
    code: int | None = None
    node: str = ""

    @property
    def over(self) -> bool:
        return self.state not in WAITING and self.state not in RUNNING


WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
RUNNING = {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}


class Jobs(Protocol):
    """Where jobs run. All may raise `Unanswered`."""

    def submit(self, folder: Path, resources: Resources) -> str:
        """The id of a new job that runs the trial in ``folder``."""
        ...

    def look(self) -> Mapping[str, Seen]:
        """All jobs of this user that are known, by their ids."""
        ...

    def remember(self, job: str) -> Seen | None:
        """A job that `look` does not know any more."""
        ...

    def end(self, jobs: Collection[str], *, hard: bool) -> None:
        """Ask jobs to save a checkpoint and leave; ``hard``: kill them."""
        ...


def job_name(folder: Path) -> str:
    """What a trial's job is called: a driver that is started again finds it by that."""
    return f"{NAME}-{folder.name[:40]}-{sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"


def become(folder: str, environment: Mapping[str, str]) -> None:
    """Turn this process, on whatever node, into the worker of a trial."""
    log = os.open(Path(folder) / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for number in (1, 2):
        os.dup2(log, number)
    if job := os.environ.get("SLURM_JOB_ID"):
        os.write(1, f"Slurm job {job} on {socket.gethostname()}\n".encode())
    os.execve(sys.executable, command(folder), {**environment, **os.environ})  # noqa: S606


def submitit() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import submitit as package
    except ImportError:
        raise UserError("--slurm must have submitit; got none. pip install 'engram[slurm]'") from None
    return package


class SlurmJobs:
    """Jobs in a partition. What submitit writes for them lies in ``folder``, which all nodes must see."""

    def __init__(self, folder: Path, partition: str) -> None:
        package, self.partition = submitit(), partition
        try:
            # exec: the batch script's shell would die of SIGTERM, and its children with it
            self._executor = package.SlurmExecutor(folder, python=f"exec {shlex.quote(sys.executable)}")
        except RuntimeError:
            remedy = "Run this where sbatch is, or try it out with --slurm local."
            raise must("--slurm", "given on a machine of a Slurm cluster", "one without srun", remedy) from None
        self._executor._throttling = 0.0  # one at a time is what the driver starts

    def require(self, resources: Resources) -> None:
        """Ask Slurm whether it would take a trial's job.

        Raises:
            UserError: it would not, or does not answer.
        """
        asked = [f"--{word.replace('_', '-')}={value}" for word, value in self._wishes(resources).items()]
        try:
            _slurm("sbatch", "--test-only", *asked, "--wrap=true")
        except Unanswered as error:
            remedy = "See: sinfo, and what --devices, --cores and --gpus ask for."
            raise must(f"--slurm {self.partition}", "a partition that can run a trial", str(error), remedy) from None

    def _wishes(self, resources: Resources) -> dict[str, Any]:
        wishes: dict[str, Any] = {"partition": self.partition, "cpus_per_task": resources.cores or 1}
        if resources.gpus:
            wishes["gpus_per_node"] = resources.gpus
        if resources.memory:
            wishes["mem"] = f"{ceil(resources.memory / 2**20)}M"
        if resources.seconds:
            wishes["time"] = ceil(resources.seconds / 60) + MARGIN_MINUTES
        return wishes

    def submit(self, folder: Path, resources: Resources) -> str:
        wishes = {"time": None, "wckey": None, **self._wishes(resources)}
        more = {"signal": f"B:USR2@{NOTICE_SECONDS}", "requeue": True}
        self._executor.update_parameters(
            job_name=job_name(folder), use_srun=False, additional_parameters=more, **wishes
        )
        try:
            return str(self._executor.submit(become, str(folder), defaults(resources.cores or 1)).job_id)
        except Exception as error:  # submitit's own, with all that sbatch said
            raise Unanswered(_last_line(str(error))) from error

    def look(self) -> Mapping[str, Seen]:
        said = _slurm(
            "squeue",
            "--noheader",
            "--states=all",
            f"--user={getpass.getuser()}",
            "--Format=JobID:24,State:24,exit_code:16,Name:80,NodeList:64",
        )
        rows = (line.split() for line in said.splitlines())
        return {row[0]: Seen(row[3], row[1], exit_code(row[2]), "".join(row[4:5])) for row in rows if len(row) > 3}

    def remember(self, job: str) -> Seen | None:
        try:
            said = _slurm("sacct", "-n", "-P", "-X", "-j", job, "-o", "JobName,State,ExitCode,NodeList")
        except Unanswered:  # a cluster without accounting
            return None
        rows = [line.split("|") for line in said.splitlines()]
        return next((Seen(n, s.split()[0], exit_code(c), w) for n, s, c, w in rows if s), None)

    def end(self, jobs: Collection[str], *, hard: bool) -> None:
        if not jobs:
            return
        how = ("--signal=KILL", "--full") if hard else ("--signal=TERM", "--batch")  # the worker is the batch script
        lost: Unanswered | None = None
        for words in (("--state=PENDING",), ("--state=RUNNING", *how)):  # one that waits takes no signal
            try:
                _slurm("scancel", *words, *jobs)
            except Unanswered as error:
                lost = error
        if lost is not None:
            raise lost


class LocalJobs:
    """The same by submitit's local executor: to try a suite out where there is no Slurm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._executor = submitit().LocalExecutor(folder)
        self._executor._throttling = 0.0
        self._own: dict[str, Any] = {}

    def submit(self, folder: Path, resources: Resources) -> str:
        self._executor.update_parameters(timeout_min=60 * 24 * 365, gpus_per_node=resources.gpus or 0)
        job = self._executor.submit(become, str(folder), defaults(resources.cores or 1))
        self._own[job.job_id] = job
        return job.job_id

    def look(self) -> Mapping[str, Seen]:
        own = {job for job, held in self._own.items() if not held.done()}
        found = dict.fromkeys(own, Seen("", "RUNNING"))
        for controller in Path("/proc").glob("[0-9]*"):
            if [str(self.folder), "submitit.local._local"] != list(reversed(_words(controller)[-2:])):
                continue
            for child in _children(controller.name):
                if (words := _words(Path("/proc", str(child))))[-2:-1] == ["exec"]:
                    found[controller.name] = Seen(job_name(Path(words[-1])), "RUNNING")
        return {job: seen for job, seen in found.items() if job in own or job not in self._own}

    def remember(self, job: str) -> Seen | None:
        return None

    def end(self, jobs: Collection[str], *, hard: bool) -> None:
        for job in jobs:
            for process in _children(job):
                try:
                    os.kill(process, signal.SIGKILL if hard else signal.SIGTERM)
                except ProcessLookupError:
                    continue


def exit_code(said: str) -> int | None:
    """An exit code as Slurm has it, negative for a signal.

    >>> exit_code("36608"), exit_code("143:0"), exit_code("0:9"), exit_code("9"), exit_code("?")
    (143, 143, -9, -9, None)
    """
    code, colon, ended_by = said.partition(":")
    try:
        return (-int(ended_by) or int(code)) if colon else os.waitstatus_to_exitcode(int(code))
    except ValueError:
        return None


def _slurm(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unanswered(f"{words[0]}: {error}") from None
    if done.returncode:
        raise Unanswered(_last_line(done.stderr) or f"{words[0]} ended with {done.returncode}")
    return done.stdout


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "error" in line), lines[-1] if lines else "")


def _words(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _children(process: str) -> list[int]:
    try:
        return [int(each) for each in Path("/proc", process, "task", process, "children").read_text().split()]
    except OSError:
        return []
