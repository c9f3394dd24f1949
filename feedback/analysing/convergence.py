"""Whether a network comes to rest: how much every stage changes from step to step."""

from __future__ import annotations

from torch import Tensor


def residuals(value: Tensor) -> Tensor:
    """The relative change in every step, ``|y_t - y_(t-1)| / max(|y_t|, |y_(t-1)|)``, for every picture.

    It is 0 where both are 0, and at most 2.

    Args:
        value: [S, B, ...] after every step.

    Returns: [S - 1, B] float64.

    >>> import torch
    >>> residuals(torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]], [[6.0, 8.0]]])).flatten().tolist()
    [0.0, 0.5]
    """
    flat = value.flatten(2).double()
    sizes = flat.norm(dim=2)
    size = sizes[1:].maximum(sizes[:-1])
    return (flat[1:] - flat[:-1]).norm(dim=2) / size.masked_fill(size == 0, 1)
