"""Options of the adapters ``snn.qcfs`` and ``snn.spiking``; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le


@dataclass(frozen=True, kw_only=True)
class QCFSOptions:
    """Quantised activations that integrate-and-fire neurons repeat exactly."""

    levels: Annotated[int, Ge(1), Le(256)] = 4
    """Quantisation levels L; the converted network is nearest to this one at L simulation steps."""
    per: Literal["channel", "layer"] = "channel"
    """One learnable threshold for each channel or for each layer."""
    threshold: Annotated[float, Gt(0)] | None = None
    """Every threshold's first value (the paper's is 8); None: what quantises the training images' activations best."""
