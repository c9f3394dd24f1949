"""Alike distributions of features, compared by kernels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from engram.causal.objectives.environments import Groups
from engram.causal.objectives.matching import Matching

RATES = tuple(10.0**power for power in range(-3, 4))
"""Of the kernels, DomainBed's: features of one scale or another are compared by one of them."""


class MMD(Matching):
    """The difference of two environments is the squared maximum mean discrepancy of their features, by the sum of
    Gaussian kernels ``exp(-gamma |x - y|^2)`` of the rates `RATES`.

    It takes memory for the square of the batch.

    Source: Gretton et al. 2012 (JMLR 13), equation 5, which is never negative; as a penalty Li et al. 2018 (CVPR),
    with the kernels of DomainBed.
    """

    def difference(self, features: Tensor, groups: Groups) -> Tensor:
        squares = features.square().sum(1)
        distances = (squares[:, None] + squares - 2 * features @ features.T).clamp_min(0).fill_diagonal_(0)
        kernel = sum(((-rate * distances).exp() for rate in RATES), start=distances.new_zeros(()))
        there = groups.sizes >= 2
        shares = F.one_hot(groups.of, groups.count) * (there / groups.sizes.clamp_min(1))
        alike, count = shares.T @ kernel @ shares, there.sum()
        return 2 * (alike.trace() - alike.sum() / count.clamp_min(1)) / (count - 1).clamp_min(1)
