"""Values of a confounder that nobody has told: clusters of features."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 100


def k_means(x: Tensor, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Centres whose squared distances to the nearest points sum up to little, and which points those are.

    Args:
        x: [N, F].
        count: how many centres; where there are fewer different points, some have none.
        random: draws the first centres.

    Returns:
        The centres ``[count, F]`` and the nearest of each point ``[N] int64``.

    Source: Lloyd 1982 (doi 10.1109/TIT.1982.1056489); the first centres: Arthur and Vassilvitskii 2007, k-means++.
    """
    centres = _first(x, count, random)
    nearest = _distances(x, centres).argmin(1)
    for _ in range(ROUNDS):
        counts = nearest.bincount(minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        moved = _distances(x, centres).argmin(1)
        if torch.equal(moved, nearest):
            break
        nearest = moved
    return centres, nearest


def _first(x: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Points, each drawn the likelier the further it is from those before."""
    chosen = [int(torch.randint(len(x), (), generator=random))]
    left = _distances(x, x[chosen])[:, 0]
    while len(chosen) < count:
        lot = torch.rand((), generator=random) * left.sum()
        chosen.append(min(int((left.cumsum(0) <= lot).sum()), len(x) - 1))
        left = torch.minimum(left, _distances(x, x[chosen[-1:]])[:, 0])
    return x[chosen]


def _distances(x: Tensor, centres: Tensor) -> Tensor:
    """Squared, [N, K]."""
    return (x.square().sum(1, keepdim=True) - 2 * x @ centres.T + centres.square().sum(1)).clamp(min=0)
