"""Options of the trunk's heads; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt


@dataclass(frozen=True, kw_only=True)
class CosineOptions:
    """Cosine of the angle to a vector for each class."""

    scale: Annotated[float, Gt(0)] = 10.0
    """Multiplies the cosines: logits lie between minus and plus this."""
    learn_scale: bool = False
    """Train that factor, which begins there."""
