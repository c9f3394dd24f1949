"""Pictures of no class: who is further from all class means than pictures of these classes are from the nearest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engram.backbone.nets.prototypes import class_means

NONE = "none of these"
"""The answer to them."""


def left_out(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """How far each picture of a support set would be from the nearest class mean, were it none of the support set.

    A class of k pictures whose features scatter by s^2 about its true mean has its mean s^2 / k from there, and a new
    picture is at s^2 (1 + 1 / k) on average. A picture that is left out is at s^2 (1 + 1 / (k - 1)) from the mean of
    the others, which is brought to k.

    Args:
        features: [S, F]; labels: [S] in [0, ways).
        ways: the number of classes.

    Returns: [S] squared distances; nan for the only picture of a class.

    >>> left_out(torch.tensor([[0.0], [2.0], [7.0], [3.0]]), torch.tensor([0, 0, 1, 2]), 3)
    tensor([3., 1., nan, nan])
    """
    counts = torch.bincount(labels, minlength=ways)[labels].to(features.dtype)
    far = _squared(features, class_means(features, labels, ways))
    own = far.gather(1, labels[:, None]).squeeze(1)
    others = own * (counts / (counts - 1)).square()  # from the mean of the others
    brought = (others * (counts + 1) * (counts - 1) / counts.square()).where(counts > 1, math.nan)
    return far.scatter(1, labels[:, None], brought[:, None]).amin(1)


def limit(distances: Tensor, share: float) -> float | None:
    """The distance beyond which about a share of further pictures of known classes lies; None where none is known.

    Of n distances of such pictures it is the one of rank ``ceil((n + 1) (1 - share))``: were the next picture just
    another of them, it would be further with a probability of ``share`` at most. The largest where n does not suffice.

    Args:
        distances: as `left_out` has them.
        share: between 0 and 1.

    Source: conformal prediction, Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World", chapter 2.

    >>> limit(torch.arange(1.0, 20.0), 0.1), limit(torch.tensor([torch.nan]), 0.1)
    (18.0, None)
    """
    known = distances[~distances.isnan()].sort().values
    if not len(known):
        return None
    rank = math.ceil((len(known) + 1) * (1 - share) - 1e-9)
    return float(known[min(rank, len(known)) - 1])


def distances(features: Tensor, means: Tensor) -> Tensor:
    """features: [Q, F], means: [K, F] -> squared distance to the nearest mean, [Q]."""
    return _squared(features, means).amin(1)


def _squared(features: Tensor, means: Tensor) -> Tensor:
    """Squared distances [Q, K], not as differences of large numbers."""
    return torch.cdist(features, means, compute_mode="donot_use_mm_for_euclid_dist").square()
