"""Clip-floor-shift activations: a ReLU network trained to be what integrate-and-fire neurons compute in L steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

FLOOR = 1e-4
"""Smallest threshold in force: an optimizer may carry a parameter below zero."""


class _ClipFloorShift(torch.autograd.Function):
    """theta clip(floor(x L / theta + 1/2) / L, 0, 1), with the floor passed straight through in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, levels: int) -> Tensor:
        """x: [B, C, ...], theta: broadcastable to it and of its type -> the shape of x."""
        ctx.save_for_backward(x, theta)
        ctx.levels = levels
        y = (x * (levels / theta)).add_(0.5).floor_().clamp_(0, levels)
        return y.mul_(theta / levels)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        x, theta = ctx.saved_tensors
        (grad,) = grads
        level = (x * (ctx.levels / theta)).add_(0.5).floor_()
        linear = (level >= 0) & (level < ctx.levels)
        by_theta = torch.where(linear, level / ctx.levels - x / theta, (level >= ctx.levels).to(x.dtype))
        return grad * linear, (grad * by_theta).sum_to_size(theta.shape), None


class _Floored(torch.autograd.Function):
    """max(threshold, `FLOOR`); what lies below the floor gets the gradients that lift it, and no others.

    Without them a threshold that one long step of the optimizer carried below zero would stay there for good.
    """

    @staticmethod
    def forward(ctx: Any, threshold: Tensor) -> Tensor:
        ctx.save_for_backward(threshold)
        return threshold.clamp_min(FLOOR)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (threshold,) = ctx.saved_tensors
        (grad,) = grads
        return grad * ((threshold >= FLOOR) | (grad < 0))


class QCFS(nn.Module):
    """Quantisation clip-floor-shift activation, with a learnable threshold theta and L levels.

        h(x) = theta clip(floor(x L / theta + 1/2) / L, 0, 1)
        dh/dx = 1 where -theta / 2L <= x < theta - theta / 2L, else 0
        dh/dtheta = (h - x) / theta there, 0 below, 1 above

    An integrate-and-fire neuron of threshold theta, started at theta / 2 and driven by a constant x, gives
    ``h(x) L / theta`` spikes in L steps: exactly, at any x.

    Args:
        channels: thresholds, one per channel (dimension 1 of the input); 1 for one of the whole layer.
        levels: L.
        threshold: first value of theta.

    Shapes: [B, C, ...] -> the same.

    Source: Bu et al. 2022 (arXiv 2303.04347), section 4.
    """

    leaf = True  # one node in a traced graph

    def __init__(self, channels: int, levels: int, threshold: float = 8.0) -> None:
        super().__init__()
        self.levels = levels
        self.threshold = nn.Parameter(torch.full((channels,), float(threshold)))

    def extra_repr(self) -> str:
        return f"{len(self.threshold)}, levels={self.levels}"

    def theta(self) -> Tensor:
        """[channels] > 0, the thresholds in force."""
        return _Floored.apply(self.threshold)  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        theta = self.theta().to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))
        return _ClipFloorShift.apply(x, theta, self.levels)  # type: ignore[return-value]
