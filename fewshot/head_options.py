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


@dataclass(frozen=True, kw_only=True)
class SimpleShotOptions:
    """Squared distance to class means of features that were moved and scaled before."""

    transform: Literal["un", "l2n", "cl2n"] = "cl2n"
    """What is done to features: nothing; length 1; the mean of the training classes subtracted, then length 1."""


@dataclass(frozen=True, kw_only=True)
class RidgeOptions:
    """Ridge regression to the classes of the support set."""

    penalty: Annotated[float, Gt(0)] = 1.0
    """On the squared weights; episodic training goes on from there."""
    scale: Annotated[float, Gt(0)] = 10.0
    """Multiplies what is predicted, which lies near 0 and 1; episodic training goes on from there."""


@dataclass(frozen=True, kw_only=True)
class MatchingOptions:
    """Attention to every image of the support set."""

    scale: Annotated[float, Gt(0)] = 10.0
    """Multiplies the cosines under the softmax."""
    learn_scale: bool = False
    """Train that factor, which begins there."""
