"""The spike and what stands for its derivative.

A spike is the step function of d = u - theta, the distance to the threshold: 1 for d >= 0, else 0. Its derivative is
zero almost everywhere, so that the backward pass uses g(d) instead. With k the slope:

| name         | g(d)                             | area  | source                                  |
|--------------|----------------------------------|-------|-----------------------------------------|
| arctan       | (k / 2) / (1 + (pi k d / 2)^2)   | 1     | Fang et al. 2021 (arXiv 2007.05785)     |
| fast-sigmoid | (k / 2) / (1 + k abs(d))^2       | 1     | Neftci et al. 2019 (arXiv 1901.09948)   |
| triangle     | k max(0, 1 - k abs(d))           | 1     | Esser et al. 2016 (arXiv 1603.08270)    |
| sigmoid      | k sigma(k d) (1 - sigma(k d))    | 1     | Wu et al. 2018 (arXiv 1706.02609)       |
| superspike   | 1 / (1 + k abs(d))^2             | 2 / k | Zenke and Ganguli 2018 (arXiv 1705.11146) |
| gaussian     | k exp(-(k d)^2 / 2) / sqrt(2 pi) | 1     | Wu et al. 2018 (arXiv 1706.02609)       |

Those of area 1 are derivatives of functions that rise from 0 to 1. ``superspike``, of peak 1, is what snnTorch calls
fast_sigmoid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from engram.snn.neurons.options import Surrogate

Derivative = Callable[[Tensor, float], Tensor]


def arctan(d: Tensor, k: float) -> Tensor:
    """g(d) of ``arctan``; d: any shape."""
    return (k / 2) / (1 + (math.pi / 2 * k * d).square())


def fast_sigmoid(d: Tensor, k: float) -> Tensor:
    """g(d) of ``fast-sigmoid``; d: any shape."""
    return (k / 2) / (1 + k * d.abs()).square()


def triangle(d: Tensor, k: float) -> Tensor:
    """g(d) of ``triangle``; d: any shape."""
    return k * (1 - k * d.abs()).clamp_min(0)


def sigmoid(d: Tensor, k: float) -> Tensor:
    """g(d) of ``sigmoid``; d: any shape."""
    s = torch.sigmoid(k * d)
    return k * s * (1 - s)


def superspike(d: Tensor, k: float) -> Tensor:
    """g(d) of ``superspike``; d: any shape."""
    return 1 / (1 + k * d.abs()).square()


def gaussian(d: Tensor, k: float) -> Tensor:
    """g(d) of ``gaussian``; d: any shape."""
    return k / math.sqrt(2 * math.pi) * torch.exp(-0.5 * (k * d).square())


DERIVATIVES: Mapping[Surrogate, Derivative] = {
    "arctan": arctan,
    "fast-sigmoid": fast_sigmoid,
    "triangle": triangle,
    "sigmoid": sigmoid,
    "superspike": superspike,
    "gaussian": gaussian,
}


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, d: Tensor, surrogate: Surrogate, slope: float) -> Tensor:
        ctx.save_for_backward(d)
        ctx.surrogate, ctx.slope = surrogate, slope
        return (d >= 0).to(d.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (d,) = ctx.saved_tensors
        return grads[0] * DERIVATIVES[ctx.surrogate](d, ctx.slope), None, None


def spike(d: Tensor, surrogate: Surrogate, slope: float) -> Tensor:
    """The step function of the distance to the threshold, with a surrogate for its derivative.

    Args:
        d: u - theta, any shape.
        surrogate: shape of the derivative.
        slope: k > 0, in 1 / units of d.

    Returns: spikes in {0, 1}, of the shape and type of d.
    """
    spikes = _Spike.apply(d, surrogate, slope)
    assert isinstance(spikes, Tensor)
    return spikes
