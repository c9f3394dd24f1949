"""Which stages give nothing below zero: sums in their place are to give nothing below zero either."""

from __future__ import annotations

from typing import Any

import torch

IMAGES = 4


@torch.no_grad()
def rectified(inner: Any) -> tuple[bool, ...]:
    """Of every stage of a network in stages, whether it ends with a rectification.

    What some random images give tells: a stage that ends before its nonlinearity, or has another one than a
    rectification, gives values below zero whatever its weights are.
    """
    modes = [(module, module.training) for module in inner.modules()]
    inner.eval()
    like = next(inner.parameters())
    drawn = torch.randn(IMAGES, *inner.in_shape, generator=torch.Generator().manual_seed(0))
    value, found = drawn.to(like.device, like.dtype), list[bool]()
    for stage in range(len(inner.stage_channels)):
        value = inner.apply_stage(stage, value)
        found.append(bool((value >= 0).all()))
    for module, training in modes:
        module.training = training
    return tuple(found)
