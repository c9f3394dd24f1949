"""How much of every value is let through: attention to channels, then to places."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gates(nn.Module):
    """Between 0 and 1 for every value of a map: a factor of its channel times one of its place.

        sigmoid(m(mean over places) + m(largest over places)), then
        sigmoid(k x k convolution of the mean and the largest over channels of what that leaves)

    with m two layers and a ReLU between them.

    Args:
        channels: C.
        reduction: m has C / reduction units, at least one.
        kernel: k, odd.

    Source: Woo, Park, Lee and Kweon 2018 (arXiv 1807.06521), equations 2 and 3.
    """

    def __init__(self, channels: int, reduction: int, kernel: int) -> None:
        super().__init__()
        units = max(1, channels // reduction)
        self.of_channels = nn.Sequential(nn.Linear(channels, units), nn.ReLU(), nn.Linear(units, channels))
        self.of_places = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> the same shape, between 0 and 1."""
        channels = (self.of_channels(x.mean((2, 3))) + self.of_channels(x.amax((2, 3)))).sigmoid()[..., None, None]
        seen = x * channels
        places = self.of_places(torch.cat([seen.mean(1, keepdim=True), seen.amax(1, keepdim=True)], 1)).sigmoid()
        return channels * places
