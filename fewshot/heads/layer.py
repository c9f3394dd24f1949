"""Heads that a support set makes a linear layer of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.nets.heads import layer_of


class Layer(nn.Module):
    """What such heads have in common: the layer itself, which is nan until a support set has given it.

    Args:
        features: F.
        classes: K.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.full((classes, features), torch.nan))
        self.register_buffer("bias", torch.full((classes,), torch.nan))

    def forward(self, features: Tensor) -> Tensor:
        """features: [..., F] -> logits [..., K], of a head that was `fitted`."""
        return F.linear(features, self.weight, self.bias)

    def as_linear(self) -> nn.Linear:
        """The layer, in a copy."""
        return layer_of(self.weight, self.bias)
