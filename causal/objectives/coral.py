"""Alike means and covariances of features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from engram.causal.objectives.environments import Groups
from engram.causal.objectives.matching import Matching


class CORAL(Matching):
    """The difference of two environments is the mean squared one of their features' means [D], and of their covariances
    [D, D], added.

    Source: Sun and Saenko 2016 (arXiv 1607.01719); of several environments, with means and by means over elements, as
    in DomainBed (Gulrajani and Lopez-Paz 2021, arXiv 2007.01434).
    """

    def difference(self, features: Tensor, groups: Groups) -> Tensor:
        means = groups.means(features)
        centred = features - means[groups.of]
        shares = F.one_hot(groups.of, groups.count) / (groups.sizes - 1).clamp_min(1)
        covariances = (shares.T[:, None] * centred.T) @ centred
        return groups.spread(means) + groups.spread(covariances)
