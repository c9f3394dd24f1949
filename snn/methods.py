"""The ways to convert a network, as data; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backbone.errors import must

Threshold = Literal["max", "percentile", "mse", "ltb"]
Per = Literal["channel", "layer"]
Correction = Literal["bias", "potential", "weights"]
Calibration = Literal["auto", "none", "bias", "potential", "weights"]
Coding = Literal["constant", "poisson", "latency", "delta"]

FITTED_STEPS = 8
"""Longest simulation that thresholds and calibration aim at unless told otherwise; more steps forgive more errors."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How a network becomes a spiking one; the options of ``snn.convert`` of the same names say what each field does.

    Raises:
        UserError: there are no steps, or the read-out leaves out all of them.
    """

    steps: int
    threshold: Threshold = "percentile"
    percentile: float = 99.9
    per: Per = "channel"
    calibration: Calibration = "auto"
    calibration_steps: int | None = None
    start: float = 0.5
    delay: int = 0
    pre_simulation: int = 0
    hybrid: str = "none"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise must("the number of simulation steps", "at least 1", self.steps, "Use more steps.")
        if not 0 <= self.delay < self.steps:
            raise must("the delay", f"less than the {self.steps} steps", self.delay, "Simulate longer.")

    @property
    def fitted_steps(self) -> int:
        """The length of simulation that thresholds and calibration aim at."""
        return self.calibration_steps or min(self.steps, FITTED_STEPS)
