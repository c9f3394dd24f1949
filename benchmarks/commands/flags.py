"""The flags of the commands themselves; those of an experiment come from its configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le

from engram.backbone.contract import Flags
from engram.backbone.errors import UserError, must
from engram.benchmarks.compare.wanted import Wanted
from engram.benchmarks.records.quantities import parse_duration, parse_size

WRITTEN = (".csv", ".json", ".md", ".tex", ".xml")
"""What ``--to`` can be."""


@dataclass(frozen=True, kw_only=True)
class Where(Flags):
    """What every command takes."""

    out: Path = Path("runs")
    """Folder of trials, sweeps and mlflow.db."""


@dataclass(frozen=True, kw_only=True)
class Showing(Where):
    """For commands that only look."""

    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True, kw_only=True)
class Watching(Showing):
    watch: bool = False
    """Show it anew until all of it is over."""


@dataclass(frozen=True, kw_only=True)
class Following(Showing):
    follow: bool = False
    """Go on as long as the trial runs."""


@dataclass(frozen=True, kw_only=True)
class Stopping(Where):
    drain: bool = False
    """Let running trials come to their end."""


@dataclass(frozen=True, kw_only=True)
class Cleaning(Showing):
    yes: bool = False
    """Remove it; by default it is listed."""


@dataclass(frozen=True, kw_only=True)
class Doctoring(Showing):
    install: str | None = None
    """First make the environment of this name that other software runs in, such as lava."""


@dataclass(frozen=True, kw_only=True)
class Tracked(Where):
    """For commands that speak to MLflow."""

    tracking_uri: str | None = None
    """MLflow server; by default the file mlflow.db below --out."""

    def problems(self) -> list[str]:
        from engram.benchmarks.sink.address import problem_of

        problem = "" if self.tracking_uri is None else problem_of(self.tracking_uri)
        return [problem] if problem else []


@dataclass(frozen=True, kw_only=True)
class Promoting(Tracked):
    alias: str | None = None
    """Let this alias mean the version, such as champion."""


@dataclass(frozen=True, kw_only=True)
class Running(Tracked):
    """What every command that runs trials takes."""

    data_root: Path | None = None
    """Folder of data sets; by default $ENGRAM_DATA, or data/."""
    download: bool = False
    """Fetch data sets that are not there."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    devices: Annotated[int, Ge(1), Le(1024)] = 1
    """Processes that share every batch of a trial, each on a GPU of its own, or on its part of the cores. The numbers
    are those of one up to rounding, and so is the trial."""
    ray: str | None = None
    """Run trials as tasks of the Ray cluster at this address, such as auto or HOST:6379."""
    slurm: str | None = None
    """Run trials as Slurm jobs in this partition; local is none, but processes here, to try it out."""
    cores: Annotated[int, Ge(1)] | None = None
    """Cores of each trial; by default its share of this machine's, on a cluster one, or one for each of --devices."""
    gpus: Annotated[int, Ge(0)] | None = None
    """GPUs of each trial on a cluster; by default none, or one for each of --devices unless --device is cpu."""
    memory: str | None = None
    """End a trial whose processes hold more than this, such as 4GiB."""
    time: str | None = None
    """End a trial that takes longer than this, with a checkpoint, such as 2h."""
    retries: Annotated[int, Ge(0)] = 0
    """How often a trial is started again whose process was killed or lost."""
    json: bool = False
    """Print one JSON object on standard output, everything else on standard error."""

    def problems(self) -> list[str]:
        found = super().problems()
        if self.ray is not None and self.slurm is not None:
            found.append(f"--slurm must be left out where --ray is given; got {self.slurm}. Choose one.")
        if self.gpus is not None and self.ray is None and self.slurm is None:
            remedy = "Here trials share the GPUs that CUDA_VISIBLE_DEVICES lists."
            found.append(f"--gpus must be given with --ray or --slurm; got {self.gpus}. {remedy}")
        elif self.devices > 1:
            found += map(str, self._too_little())
        for name, text, parse in (("--memory", self.memory, parse_size), ("--time", self.time, parse_duration)):
            try:
                _ = text is None or parse(text)
            except ValueError as error:
                found.append(str(must(name, str(error), text, "Leave it out for no limit.")))
        return found

    def _too_little(self) -> Iterator[UserError]:
        """What a trial would get that its processes cannot share."""
        each, several = "one for each of --devices", self.devices
        if self.cores is not None and self.cores < several:
            yield must("--cores", f"at least {several}, {each}", self.cores, "Raise it, or leave it out.")
        fit = {"cpu": (0,), "cuda": (several,), "auto": (several, 0)}[self.device]
        if self.gpus is not None and self.gpus not in fit:
            rules = {0: "0 for processes without", several: f"{several}, {each}"}
            yield must("--gpus", ", or ".join(rules[count] for count in fit), self.gpus, "Leave it out.")

    @property
    def root(self) -> Path:
        return (self.data_root or Path(os.environ.get("ENGRAM_DATA") or "data")).expanduser().resolve()


@dataclass(frozen=True, kw_only=True)
class Planning(Running):
    dry_run: bool = False
    """Show the plan and write nothing."""


@dataclass(frozen=True, kw_only=True)
class Sweeping(Planning):
    workers: Annotated[int, Ge(1)] | None = None
    """Trials at once; by default one, with --ray as many as there is room for, with --slurm 100 jobs."""


@dataclass(frozen=True, kw_only=True)
class Quick(Running):
    workers: Annotated[int, Ge(1)] | None = None
    """Trials at once; by default one per core, at most 4."""


@dataclass(frozen=True, kw_only=True)
class Reproducing(Quick):
    seeds: Annotated[int, Ge(1)] | None = None
    """Run only so many of the protocol's seeds; more can follow. By default all of them."""


@dataclass(frozen=True, kw_only=True)
class Comparing(Wanted, Tracked):
    to: Path | None = None
    """Write it into this file as well: .csv, .json, .md, .tex or .xml (JUnit)."""
    json: bool = False
    """Print one JSON object."""

    def problems(self) -> list[str]:
        found = super().problems()
        if self.only or self.fail_if is not None:
            from engram.benchmarks.compare.gathering import check_words  # which other commands do without

            try:
                check_words(self)
            except UserError as error:
                found += str(error).splitlines()
        if self.to is not None and self.to.suffix not in WRITTEN:
            got, remedy = self.to, "Give it such a name."
            found.append(str(must("--to", f"a file that ends in {', '.join(WRITTEN)}", got, remedy)))
        if self.baseline is not None and self.fail_if is None:
            remedy = 'Give one: --fail-if "worse test/accuracy"'
            found.append(str(must("--baseline", "given with a gate, which asks for it", "none", remedy)))
        if self.to is not None and self.to.suffix == ".xml" and self.fail_if is None:
            remedy = 'Give one: --fail-if "test/accuracy < 0.9"'
            found.append(str(must("--to FILE.xml", "given with a gate, which is what it holds", "none", remedy)))
        return found


@dataclass(frozen=True, kw_only=True)
class Reporting(Where):
    objectives: tuple[str, ...] = ()
    """Metrics to hold against each other, whose Pareto front is drawn; by default those of a search with several."""
    tasks: str | None = None
    """The option whose values are tasks; by default the data set, where the sweep varies it and something else."""


@dataclass(frozen=True, kw_only=True)
class Interface(Where):
    port: Annotated[int, Ge(1), Le(65535)] = 5000
    """Port on the loopback address."""
