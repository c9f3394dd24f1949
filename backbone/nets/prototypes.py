"""Class means, and the nearest of them as a linear layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LARGE = 2**22  # images times classes: a matrix of who belongs where would take gigabytes, and is faster below


def class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """The mean of the features of each class.

    Args:
        features: [..., S, D].
        labels: [..., S] int64 in [0, ways).
        ways: K.

    Returns: [..., K, D]; NaN for a class that has no features.

    >>> class_means(torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([1, 1, 0]), 2).tolist()
    [[7.0], [2.0]]
    """
    if labels.shape[-1] * ways > _LARGE:
        sums = features.new_zeros(*labels.shape[:-1], ways, features.shape[-1])
        sums = sums.scatter_add(-2, labels.unsqueeze(-1).expand_as(features), features)
        counts = features.new_zeros(*labels.shape[:-1], ways).scatter_add(-1, labels, torch.ones_like(features[..., 0]))
        return sums / counts.unsqueeze(-1)
    member = F.one_hot(labels, ways).to(features.dtype)
    return (member.mT @ features) / member.sum(-2).unsqueeze(-1)


def nearest_mean(means: Tensor) -> tuple[Tensor, Tensor]:
    """means: [..., K, D] of K classes -> weight [..., K, D] and bias [..., K] whose largest output is the nearest.

    ``2 c . f - |c|^2`` is ``|f|^2 - |f - c|^2``, and ``|f|^2`` is the same for all classes.

    Source: Snell et al. 2017 (arXiv 1703.05175), equation 8.

    >>> weight, bias = nearest_mean(torch.tensor([[0.0, 1.0], [3.0, 0.0]]))
    >>> (weight @ torch.tensor([2.0, 1.0]) + bias).argmax().item()
    1
    """
    return 2 * means, -means.square().sum(-1)
