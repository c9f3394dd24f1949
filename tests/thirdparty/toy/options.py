"""Options of what the plugin brings; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from engram.backbone.contract import ExperimentConfig, Flag, Flags, Input, Metric


@dataclass(frozen=True, kw_only=True)
class GatedOptions:
    steps: Annotated[int, Ge(1), Le(64)] = 3
    """Passes over a still image; a recording has as many as it has frames."""


@dataclass(frozen=True, kw_only=True)
class TemperedOptions:
    temperature: Annotated[float, Gt(0)] = 2.0
    """Divides all logits."""


@dataclass(frozen=True, kw_only=True)
class GroupsOptions:
    rate: Annotated[float, Gt(0)] = 0.1
    """How fast the weights of groups follow their losses."""


@dataclass(frozen=True, kw_only=True)
class SpotsOptions:
    samples: Annotated[int, Ge(40)] = 160
    """Training images."""
    rare: Annotated[float, Gt(0), Le(0.5)] = 0.2
    """Share of the images on the other background than is usual for their class."""


@dataclass(frozen=True, kw_only=True)
class AuditConfig(ExperimentConfig):
    """How good a trained network is in every group of its test images."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            name="test/worst_group_accuracy",
            split="test",
            of="worst_group_accuracy",
            unit="fraction",
            direction="max",
            primary=True,
        ),
    )

    from_trial: Annotated[str | None, Flag("from"), Input("trained")] = None
    """The trained trial."""

    def problems(self) -> list[str]:
        if self.from_trial is None:
            return ["--from must be a trained trial; got nothing. Train one with: engram run backbone.train"]
        return []


@dataclass(frozen=True, kw_only=True)
class WaitConfig(ExperimentConfig):
    """Take a while and as good as no processor, in ten steps."""

    metrics: ClassVar[tuple[Metric, ...]] = (Metric(name="drawn", unit="count", direction="max", primary=True),)

    seconds: Annotated[float, Ge(0)] = 0.01
    """How long."""
    end: Literal["well", "segfault", "hang", "hoard", "raise"] = "well"
    """How it ends."""


@dataclass(frozen=True, kw_only=True)
class WorstFlags(Flags):
    out: Path = Path("runs")
    """Folder of trials."""
