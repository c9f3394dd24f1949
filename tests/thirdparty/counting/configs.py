from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Lt

from engram.backbone.contract import (
    ExperimentConfig,
    Flag,
    Flags,
    Input,
    Metric,
    OptionsOf,
    Registered,
    Requirement,
    Scalar,
)


@dataclass(frozen=True, kw_only=True)
class PebbleOptions:
    size: Annotated[float, Gt(0)] = 1.0
    """Of one pebble, in cm."""
    colour: Literal["grey", "white"] = "grey"
    """Of all pebbles."""


@dataclass(frozen=True, kw_only=True)
class CountConfig(ExperimentConfig):
    """Count up."""

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(name="total", unit="count", direction="max", primary=True),
        Metric(name="took", unit="s", direction="min", timed=True),
    )

    dataset: Annotated[str, Registered("datasets")] = "pebbles"
    """What to count."""
    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of what is counted."""
    steps: Annotated[int, Ge(1), Lt(1000)] = 5
    """How far."""
    pause: Annotated[float, Ge(0)] = 0.0
    """Seconds between two numbers."""
    stride: Annotated[float, Gt(0)] = 1.0
    """By how much."""
    marks: tuple[int, ...] = (1, 2)
    """Numbers to remember."""
    fail: Literal["never", "user", "trial", "crash", "nan", "missing", "disk"] = "never"
    """How to fail."""
    loud: bool = False
    """Show a table."""

    def problems(self) -> list[str]:
        if self.stride > self.steps:
            return [f"--stride must be at most --steps; got {self.stride}. Take smaller strides."]
        return []


@dataclass(frozen=True, kw_only=True)
class TallyFlags(Flags):
    out: Path = Path("runs")
    """Folder of trials."""
    by: Annotated[int, Ge(1)] = 1
    """How many at once."""
    what: Annotated[str, Registered("datasets")] = "pebbles"
    """What is added up."""


@dataclass(frozen=True, kw_only=True)
class TwiceConfig(ExperimentConfig):
    """Double a count."""

    metrics: ClassVar[tuple[Metric, ...]] = (Metric(name="double", unit="count", direction="max", primary=True),)

    from_trial: Annotated[str | None, Flag("from"), Input("count")] = None
    """The count to double; by default one is made."""
    steps: Annotated[int, Ge(1)] = 3
    """Of the count that is made."""

    def requires(self) -> Mapping[str, Requirement]:
        if self.from_trial is not None:
            return {}
        return {"count": Requirement(experiment="counting.count", config=CountConfig(steps=self.steps, seed=self.seed))}
