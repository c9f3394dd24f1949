"""Options of the networks; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Le


@dataclass(frozen=True, kw_only=True)
class AlamiaOptions:
    """The shallow network of Alamia et al. 2023."""

    width: Annotated[float, Gt(0), Le(64)] = 1.0
    """Multiplies the 12, 18 and 24 channels and the 120 units."""
