"""Options of the backbone ``nir:FILE``; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from engram.snn.neurons.options import Surrogate

Reset = Literal["soft", "hard"]
Comparison = Literal[">", ">="]
Spikes = Literal["one", "several"]
Current = Literal["new", "before"]


@dataclass(frozen=True, kw_only=True)
class NirOptions:
    """A network from a NIR file, which does not say how its equations become steps: the tool that made it does."""

    semantics: Literal["file", "nir", "engram", "sinabs", "norse", "snntorch", "lava"] = "file"
    """Whose steps: those of the tool that the file was made with. file: what the file says of itself, which engram's
    do; nir for others. What follows replaces single points of it."""
    dt: Annotated[float, Gt(0)] | None = None
    """Seconds in a step. None: the tool's (nir, snntorch and lava 0.0001, norse 0.001; of sinabs' files 1)."""
    reset: Reset | None = None
    """A spike takes the threshold off the potential (soft), or sets it to v_reset (hard)."""
    comparison: Comparison | None = None
    """Neurons fire above their threshold, or at it as well."""
    spikes: Spikes | None = None
    """At most one spike a step, or as many as thresholds fit into the potential."""
    current: Current | None = None
    """Which current the membrane of a CubaLIF sees: that of its step, or of the step before."""
    steps: Annotated[int, Ge(1), Le(4096)] | None = None
    """Steps of a still image, which is shown at each; frames are one step each. None: the file's, or 32."""
    normalise: bool = False
    """Give it images of zero mean and unit deviation, and not as they are: pictures in [0, 1], whole numbers of
    events."""
    surrogate: Surrogate = "arctan"
    """Shape of what stands for the derivative of a spike, in thresholds."""
    slope: Annotated[float, Gt(0)] | None = None
    """Steepness of the surrogate; None: as of snn.spiking."""
