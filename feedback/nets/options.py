"""Options of the networks; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le


@dataclass(frozen=True, kw_only=True)
class AlamiaOptions:
    """The shallow network of Alamia et al. 2023."""

    width: Annotated[float, Gt(0), Le(64)] = 1.0
    """Multiplies the 12, 18 and 24 channels and the 120 units."""


@dataclass(frozen=True, kw_only=True)
class SpoererOptions:
    """Two convolutions, as Spoerer et al. 2017 have them."""

    maps: Annotated[int, Ge(1), Le(1024)] = 32
    """Feature maps of both: 32 in the paper's B, BT, BL and BLT, and 64 in its control B-F."""
    kernel: Literal[3, 5] = 3
    """Side of their kernels: 3, and 5 in the paper's control B-K."""
    lrn: bool = True
    """Local response normalisation behind each ReLU, as in the paper. It changes outputs by parts in a thousand, and
    takes about as long as the convolutions."""
