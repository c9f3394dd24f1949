"""Nearest class means, as a linear layer."""

from __future__ import annotations

from torch import Tensor


def nearest_mean(means: Tensor) -> tuple[Tensor, Tensor]:
    """means: [K, D] of K classes -> weight [K, D] and bias [K] of a linear layer whose largest output is the nearest.

    ``2 c . f - |c|^2`` is ``|f|^2 - |f - c|^2``, and ``|f|^2`` is the same for all classes.

    Source: Snell et al. 2017 (arXiv 1703.05175), equation 8.

    >>> import torch
    >>> weight, bias = nearest_mean(torch.tensor([[0.0, 1.0], [3.0, 0.0]]))
    >>> (weight @ torch.tensor([2.0, 1.0]) + bias).argmax().item()
    1
    """
    return 2 * means, -means.square().sum(1)
