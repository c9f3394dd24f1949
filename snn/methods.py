"""The ways to convert a network, as data; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Threshold = Literal["max", "percentile", "mse", "ltb"]
Calibration = Literal["none", "bias", "potential", "weights"]
Per = Literal["channel", "layer"]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How a network becomes a spiking one. The options of ``snn.convert`` say what each field means."""

    steps: int
    threshold: Threshold = "percentile"
    percentile: float = 99.9
    per: Per = "channel"
    calibration: Calibration = "none"
    calibration_steps: int | None = None
    start: float = 0.5
    delay: int = 0
    pre_simulation: int = 0
    hybrid: str = "none"

    @property
    def fitted_steps(self) -> int:
        """The length of simulation that thresholds and calibration aim at."""
        return min(self.steps, LONGEST_FIT) if self.calibration_steps is None else self.calibration_steps


LONGEST_FIT = 16
