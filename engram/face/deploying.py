"""``engram.deploy``: a trained network on a chip or in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engram.backbone.errors import must
from engram.backbone.registry import Registry
from engram.face.results import FinishedTrial
from engram.face.running import run

COMMAND = "deploy"


def deploy(trial: FinishedTrial | str | Path, target: str = "loihi2-sim", **options: Any) -> FinishedTrial:
    """Put the network of a trial on a chip or into a file, as ``engram deploy TRIAL --target TARGET`` does.

    Args:
        trial: a finished trial of ``backbone.train``, ``snn.train`` or ``snn.convert``: itself, its id or its folder.
        target: loihi2-sim, lava, nir or netx.
        options: as for `engram.run`, those of ``engram deploy --help`` with underscores, ``out`` among them.

    Returns: the trial of the deployment: metrics, tables, and under ``artifacts`` the files that were written.

    Raises:
        UserError: the network has something that the target cannot say or hold, each thing with its reason; or an
            option cannot be.
        TrialError: the trial failed.

    >>> import engram
    >>> engram.deploy("nowhere", target="loihi3")
    Traceback (most recent call last):
    engram.backbone.errors.UserError: target must be one of loihi2-sim, lava, nir, netx; got loihi3. ...
    """
    command = Registry.discover().commands().get(COMMAND)
    if command is None:
        raise must("engram.deploy", "used with a plugin that has the command", "none", "Install engram whole.")
    return run(command.runs, from_trial=trial, target=target, **options)
