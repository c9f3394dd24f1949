"""What can be run, and what it may ask of the world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from engram.backbone.contract.options import ExperimentConfig
from engram.backbone.contract.results import Result
from engram.backbone.contract.values import Row, Scalar


class Services(Protocol):
    """Everything an experiment may ask of the world. An experiment writes only below ``trial_dir``."""

    @property
    def device(self) -> str: ...
    @property
    def trial_dir(self) -> Path: ...
    @property
    def data_root(self) -> Path: ...
    @property
    def download(self) -> bool: ...
    @property
    def inputs(self) -> Mapping[str, Path]:
        """Folders of the finished trials that `ExperimentConfig.requires` named, by role."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append to the trial's ledger. A (name, step) pair that is already there is not written again."""
        ...

    def progress(self, done: float, total: float, text: str = "") -> None:
        """Say how far the trial is; shown by the driver, kept nowhere."""
        ...

    def provenance(self, **facts: Scalar) -> None:
        """Record facts about inputs (``data_sha256=...``). A resumed trial must state the same ones."""
        ...

    def table(self, title: str, rows: Sequence[Row]) -> None:
        """Show a table to the user now (a pre-flight, say): it also lands in the trial's log."""
        ...


C = TypeVar("C", bound=ExperimentConfig, covariant=True)
S = TypeVar("S")


class Experiment(Protocol[C, S]):
    """A resumable piece of work; the runner owns the loop, so timing, resume and logging are written once.

    The runner constructs it with its resolved configuration and the services, calls ``start``, loads the newest valid
    checkpoint if there is one, calls ``step`` until it returns False, then ``finish``. ``step`` does a few seconds of
    work at most. ``state_dict`` holds only tensors, numbers, strings and plain containers of them.
    """

    def __init__(self, config: C, services: Services) -> None: ...
    def start(self) -> S: ...
    def step(self, state: S) -> bool: ...
    def finish(self, state: S) -> Result: ...
    def state_dict(self, state: S) -> dict[str, Any]: ...
    def load_state_dict(self, state: S, saved: Mapping[str, Any]) -> None: ...
