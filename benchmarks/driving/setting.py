"""How trials are run, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engram.benchmarks.driving.launch.contract import Resources

EACH_ITS_SHARE = Resources()


@dataclass(frozen=True, kw_only=True)
class RunSetting:
    """How trials are run: what no trial's identity depends on."""

    out: Path
    data_root: Path
    argv: Sequence[str]
    download: bool = False
    device: str = "auto"
    devices: int = 1
    """Processes that share the batches of a trial."""
    tracking_uri: str | None = None
    workers: int | None = None
    """Trials at once; None: one, and on a cluster as many as fit."""
    ray: str | None = None
    """The address of the Ray cluster that runs them."""
    slurm: str | None = None
    """The Slurm partition that runs them."""
    resources: Resources = EACH_ITS_SHARE
    """What each trial gets."""
    sweep: Path | None = None
    """The folder of their sweep, where they run on a cluster: its machines are sampled."""
    retries: int = 0
    """How many times a trial is started again whose process was killed or lost."""


@dataclass(frozen=True)
class Failure:
    """Why a trial has no result. ``kind``: user, data (missing), trial, crash, disk, killed, lost, busy or needs."""

    trial: str
    kind: str
    message: str


@dataclass
class PlanOutcome:
    """Which trials of a plan were done before, given up or failed."""

    skipped: list[str] = field(default_factory=list)
    pruned: dict[str, str] = field(default_factory=dict)
    """Trials that were given up, and why."""
    failures: list[Failure] = field(default_factory=list)
    signal: int | None = None
    halted: str = ""
    """Why the driver could not go on; "" where it could."""
    done: int = 0
    """How many have a result."""
    total: int | None = None
    """How many there are; None: nobody knows."""
    untold: str = ""
    """Why the tracking store is not complete; "" when it is."""
    refused: dict[str, str] = field(default_factory=dict)
    """What the tracking store does not take (trial or sweep -> why)."""

    @property
    def code(self) -> int:
        """The exit code of a sweep: it depends on the trials alone."""
        if self.signal is not None:
            return 128 + self.signal
        return 1 if self.failures or self.halted else 0

    @property
    def so_far(self) -> str:
        """What to say of a plan that was broken off; "" of one that was not."""
        if self.signal is None and not self.halted:
            return ""
        of = "" if self.total is None else f" of {self.total}"
        return f"{self.done}{of} trials done; the same command goes on"
