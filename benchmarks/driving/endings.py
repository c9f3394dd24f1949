"""What the end of a worker means for its trial."""

from __future__ import annotations

import errno
import os
import signal

from engram.benchmarks.driving.launch.contract import Ended
from engram.benchmarks.driving.setting import Failure
from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.records.layout import BUSY, LOG
from engram.benchmarks.records.stored import held
from engram.benchmarks.worker.disk import FULL, full
from engram.benchmarks.worker.stopping import STOPPED


def failure(trial: Trial, ended: Ended, *, forced: bool = False) -> Failure:
    """Why a trial that ended without a result has none; ``forced``: the user had it killed."""
    if ended.code is None:
        return Failure(trial.id, "lost", f"{ended.words}; the same command resumes it")
    if ended.code < 0 or ended.code == STOPPED:
        return Failure(trial.id, "killed", f"{_ended_by(trial, ended, forced)}; the same command resumes it")
    if ended.code == BUSY:
        return Failure(trial.id, "busy", "another engram is running it. Wait for it, or stop it.")
    error = held(trial.folder / "error.json")
    if not error and ended.code == FULL:
        lack = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = {"kind": "disk", "message": full(trial.folder, lack)}
    told = f"its process ended with {ended.code}: {_words(trial, ended)}"
    return Failure(trial.id, error.get("kind", "crash"), error.get("message", told))


def _words(trial: Trial, ended: Ended) -> str:
    return f"{ended.words} (see {trial.folder / LOG})" if ended.words else "it said nothing"


def _ended_by(trial: Trial, ended: Ended, forced: bool) -> str:
    code = ended.code or 0
    if forced and code == -signal.SIGKILL:
        return "it was asked to stop twice, and killed in the middle of its work"
    if ended.no_memory:
        return "its process was ended by the kernel, which had no memory left (see --memory and --workers)"
    name = signal.Signals(-code).name if code < 0 else "SIGTERM"
    hint = "out of memory?" if code == -signal.SIGKILL else f"see {trial.folder / LOG}"
    return f"its process was ended by {name} ({hint})"
