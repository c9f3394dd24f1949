"""``engram.load``: the network of a trial."""

from __future__ import annotations

from pathlib import Path

from engram.backbone.brought import find
from engram.benchmarks.records.trials import find_trial
from engram.face.results import FinishedTrial
from engram.face.trained import Trained


def load(trial: FinishedTrial | str | Path, *, out: str | Path = "runs", code: str | None = None) -> Trained:
    """The network that a trial trained or converted.

    Args:
        trial: what `engram.run` returned, a trial's id or the beginning of it, or a folder: a trial's, or one with
            ``model.json`` in it.
        out: where trials are looked for by their ids.
        code: ``FILE.py:Class`` of a network that came as code: no file of a trial is ever imported.

    Raises:
        UserError: there is no such trial, or no whole network in it.

    >>> import engram
    >>> engram.load("no-such-trial", out="/tmp")
    Traceback (most recent call last):
    engram.backbone.errors.UserError: the trial must be a trial below /tmp or a trial's folder; got 'no-such-trial'. ...
    """
    if code is not None:
        find(code)
    if isinstance(trial, FinishedTrial):
        return trial.load()
    if (Path(trial) / "model.json").is_file():
        return Trained.read_model(Path(trial))
    return Trained.read(find_trial(Path(out), str(trial), "the trial")[1])
