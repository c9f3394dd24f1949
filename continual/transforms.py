"""What makes the images of one task look different from another's, without a new class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from backbone.seeding import generator

Transform = Callable[[Tensor], Tensor]
"""images: [..., C, H, W] uint8 -> the same shape."""


def permuted(in_shape: tuple[int, int, int], seed: int, task: int) -> Transform | None:
    """The same pixels in an order of the task's own, all channels alike; the first task keeps the pictures' order.

    Source: Goodfellow et al. 2013 (arXiv 1312.6211), section 5.1.
    """
    if task == 0:
        return None
    order = torch.randperm(in_shape[1] * in_shape[2], generator=generator(seed, "permutation", task))

    def transform(images: Tensor) -> Tensor:
        flat = images.flatten(-2)
        return flat.index_select(-1, order.to(images.device)).view(images.shape)

    return transform
