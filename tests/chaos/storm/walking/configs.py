from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt

from engram.backbone.contract import ExperimentConfig, Metric


@dataclass(frozen=True, kw_only=True)
class WalkConfig(ExperimentConfig):
    """Walk at random."""

    metrics: ClassVar[tuple[Metric, ...]] = (Metric(name="distance", unit="m", direction="max", primary=True),)

    stride: Annotated[float, Gt(0)] = 1.0
    """Of one step, in m."""
    steps: Annotated[int, Ge(1)] = 40
    """How many."""
    pause: Annotated[float, Ge(0)] = 0.02
    """Seconds between two of them."""
