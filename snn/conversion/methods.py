"""The ways to convert a network, as data; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from engram.backbone.errors import UserError, must

Threshold = Literal["max", "percentile", "mse", "ltb"]
Per = Literal["channel", "layer"]
Correction = Literal["bias", "potential", "weights"]
Calibration = Literal["auto", "none", "bias", "potential", "weights"]
Frames = Literal["steps", "anew"]
Coding = Literal["constant", "poisson", "latency", "delta"]

RIGHT_ON_AVERAGE: frozenset[Coding] = frozenset({"poisson", "latency"})
"""Codings whose frames are near the picture in the mean only, which nothing keeps that is not linear."""

SHORTEST_FIT, LONGEST_FIT = 4, 8
"""Bounds of the simulation length that thresholds and calibration aim at unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How a network becomes a spiking one; the options of ``snn.convert`` of the same names say what most fields do.

    Raises:
        UserError: there are no steps, or the read-out leaves out all of them.
    """

    steps: Annotated[int, Ge(1), Le(4096)]
    threshold: Threshold = "mse"
    percentile: Annotated[float, Gt(0), Le(100)] = 99.9
    per: Per = "channel"
    calibration: Calibration = "auto"
    calibration_steps: Annotated[int, Ge(1), Le(4096)] | None = None
    start: Annotated[float, Ge(0), Lt(1)] = 0.5
    delay: Annotated[int, Ge(0), Lt(4096)] | None = None
    pre_simulation: Annotated[int, Ge(0), Le(4096)] = 0
    hybrid: str = "none"
    frames: Frames = "steps"
    """What frames are to the converted network. steps: one simulation step each. anew: pictures by themselves, as they
    are to the network that is converted: each is shown for ``steps`` steps to neurons that begin anew."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise must("the number of simulation steps", "at least 1", self.steps, "Use more steps.")
        if self.delay is not None and not 0 <= self.delay < self.steps:
            raise must("the delay", f"less than the {self.steps} steps", self.delay, "Simulate longer.")

    @property
    def fitted_steps(self) -> int:
        """The length of simulation that thresholds and calibration aim at: half of it, or 4 or 8 where that is nearer.

        Thresholds for few levels are low and resolve small activations; what they clip costs little. Chosen on
        validation images of CIFAR-10 among 3, 4, 6, 8 and 16 for simulations of 4 to 64 steps.
        """
        if self.calibration_steps is not None:
            return self.calibration_steps
        return min(self.steps, max(SHORTEST_FIT, min(self.steps // 2, LONGEST_FIT)))


def biased(coding: Coding, front: str) -> UserError:
    """The error for an analog front, as it was asked for, behind a coding in `RIGHT_ON_AVERAGE`."""
    return must(
        "--coding",
        "constant or delta before an analog front, which makes frames that are right on average wrong on average",
        f"{coding} with {front}",
        "Use --coding constant, or --hybrid none.",
    )
