"""Paired comparisons: intervals of mean differences on the same pictures, which are drawn again with replacement."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.backbone.seeding import generator

RESAMPLES = 2000
_AT_ONCE = 250
"""Resamples that are held in memory together."""


def paired_bootstrap(differences: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The means of differences between two networks, or between two states of one, and 95 % intervals of them.

    Pictures are drawn again with replacement, each with all its differences: what both find hard in common widens no
    interval. It says how far the mean over pictures like these can be trusted; how two trainings differ is told by
    several seeds. The draws are the same in every call with as many pictures.

    Args:
        differences: [N, K], of every picture K differences: of whether both are right, of probabilities, or of shares
            of its spoiled versions.

    Returns: (means, lower ends, upper ends), [K] float64 each; the ends are percentiles.

    Source: Efron and Tibshirani 1993, section 13.3.
    """
    count = len(differences)
    values, random = differences.double(), generator(0, "robustness/bootstrap")
    means = []
    for start in range(0, RESAMPLES, _AT_ONCE):
        drawn = torch.randint(count, (min(_AT_ONCE, RESAMPLES - start), count), generator=random)
        weights = torch.zeros(len(drawn), count, dtype=torch.float64)
        means.append(weights.scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64)) @ values / count)
    low, high = torch.cat(means).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return values.mean(0), low, high
