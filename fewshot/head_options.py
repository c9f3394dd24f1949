"""Options of the few-shot heads; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Le


@dataclass(frozen=True, kw_only=True)
class PrototypeOptions:
    """Squared distance to the mean of each class."""

    distance: Literal["euclidean", "gaussian"] = "euclidean"
    """gaussian: measured by the covariance within classes, which all classes share (Mahalanobis)."""
    shrinkage: Annotated[float, Gt(0), Le(1)] = 0.5
    """With gaussian: how far the covariance is drawn to the mean variance of the support set times the identity."""
    scale: Annotated[float, Gt(0)] = 1.0
    """Multiplies the distances, as the inverse of a temperature does."""
    learn_scale: bool = False
    """Train the scale, which begins there."""
