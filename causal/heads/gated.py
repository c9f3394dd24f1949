"""Logits for every value of another variable: what heads that adjust average."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Gated(nn.Module):
    """A linear classifier whose features are scaled by a gain for each value v of another variable.

        f(x, v) = W ((1 + g_v) * x) + b + c_v

    The gains make it an interaction: what the variable does depends on the image. Without them, v would move the bias
    alone, and the mean over v would be one linear classifier.

    Args:
        features: F.
        classes: K.
        values: V, how many values the variable has.

    Source: Perez et al. 2018 (arXiv 1709.07871), feature-wise modulation.
    """

    def __init__(self, features: int, classes: int, values: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.gains = nn.Parameter(torch.zeros(values, features))
        self.shifts = nn.Parameter(torch.zeros(values, classes))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        nn.init.normal_(self.gains, std=START)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., F] -> logits given each value, [..., V, K] float32.

        One matrix product gives all of them. Those of a class lie beside each other: a softmax over a few classes
        takes half the time that way.
        """
        weight = (self.weight.unsqueeze(1) * (1 + self.gains)).flatten(0, 1)
        bias = (self.bias + self.shifts).T.flatten()
        return F.linear(x, weight, bias).float().unflatten(-1, self.shifts.T.shape).mT

    def mixed(self, x: Tensor, weights: Tensor) -> Tensor:
        """Logits for a mixture of the values, whose weights need not sum to 1.

        x: [..., F], weights: [..., V] -> [..., K] float32.
        """
        gained = x * (1 + weights @ self.gains.to(weights.dtype))
        return (F.linear(gained, self.weight, self.bias) + weights @ self.shifts.to(weights.dtype)).float()


START = 0.1
"""Standard deviation of gains in the beginning."""
