"""How a network becomes chip integers, as data; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le


@dataclass(frozen=True, kw_only=True)
class QuantiseOptions:
    """The integers of a network on Loihi 2."""

    weight_bits: Annotated[int, Ge(2), Le(8)] = 8
    """Bits of a weight, its sign included where a layer has weights of both signs."""
    headroom: Annotated[float, Ge(1), Le(16)] = 1.5
    """How much further than on the calibration images sums may go, where no bound on them leaves room for the weights'
    bits."""
    plain: bool = False
    """Weights without a shift, and biases with the shift of what arrives: all that .net files can say (set by
    --target netx)."""
