"""Options of the few-shot heads; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from engram.backbone.nets.head_options import CosineOptions


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


@dataclass(frozen=True, kw_only=True)
class RelationOptions:
    """A small network that is shown a class mean and a query, and says how alike they are."""

    maps: Annotated[int, Ge(0)] = 0
    """Features are so many square maps, flattened, which are convolved; 0: they are a vector."""
    units: Annotated[int, Ge(1)] = 64
    """Width of its two hidden layers."""


@dataclass(frozen=True, kw_only=True)
class BaselinePlusPlusOptions(CosineOptions):
    """Cosine of the angle to a vector for each class, trained on the support set."""

    steps: Annotated[int, Ge(0)] = 100
    """Of gradient descent, each with the whole support set."""
    inner_lr: Annotated[float, Gt(0)] = 0.1
    """Learning rate of these steps."""


@dataclass(frozen=True, kw_only=True)
class ANILOptions:
    """A linear layer that is trained on the support set."""

    steps: Annotated[int, Ge(1)] = 5
    """Of gradient descent on the support set while the network is trained, each with the whole set."""
    test_steps: Annotated[int, Ge(1)] = 10
    """As many in evaluation."""
    inner_lr: Annotated[float, Gt(0)] = 0.1
    """Learning rate of these steps."""


@dataclass(frozen=True, kw_only=True)
class MAMLOptions:
    """A linear layer and the whole network, trained on the support set."""

    steps: Annotated[int, Ge(2)] = 5
    """Of gradient descent on the support set while the network is trained, each with the whole set. In the first, the
    layer alone moves: it begins at zero, through which no gradient comes."""
    test_steps: Annotated[int, Ge(2)] = 10
    """As many in evaluation."""
    inner_lr: Annotated[float, Gt(0)] = 0.1
    """Learning rate of these steps."""


@dataclass(frozen=True, kw_only=True)
class TIMOptions:
    """Class vectors that make the answers to all queries certain and as different as the classes."""

    steps: Annotated[int, Ge(0)] = 100
    """Of Adam, each with the whole episode."""
    inner_lr: Annotated[float, Gt(0)] = 1e-3
    """Learning rate of these steps."""
    scale: Annotated[float, Gt(0)] = 15.0
    """Multiplies half the squared distances, as the inverse of a temperature does."""
    certainty: Annotated[float, Ge(0)] = 0.1
    """Weight of the entropy of single answers, beside that of their mean."""
