from __future__ import annotations

import torch
from torch import nn


class Tempered(nn.Module):
    """A linear layer whose logits are divided by a temperature."""

    def __init__(self, features, classes, options):
        super().__init__()
        self.linear, self.temperature = nn.Linear(features, classes), options.temperature

    def forward(self, features):
        return self.linear(features) / self.temperature

    @torch.no_grad()
    def as_linear(self):
        found = nn.Linear(self.linear.in_features, self.linear.out_features).to(self.linear.weight)
        found.weight.copy_(self.linear.weight / self.temperature)
        found.bias.copy_(self.linear.bias / self.temperature)
        return found
