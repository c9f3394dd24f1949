"""Thresholds that quantise activations best, found while a network runs."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.snn.conversion.balancing import columns, nearest_quantised
from engram.snn.conversion.distributions import Histogram

SMALLEST = 1e-4


class LevelSearch:
    """The threshold of every row that gives the least squared error of L levels, over everything it is shown twice.

    The first time (``searching`` false) it looks for the largest activation, the second time it counts.

    Args:
        rows: channels, or 1 for one threshold of the whole layer.
        levels: L.
    """

    def __init__(self, rows: int, levels: int) -> None:
        self.levels, self.searching = levels, False
        self.largest = torch.zeros(rows)
        self.counted: Histogram | None = None

    def add(self, activations: Tensor) -> None:
        """activations: [B, C, ...] >= 0."""
        values = columns(activations, "channel" if len(self.largest) > 1 else "layer")
        if not self.searching:
            self.largest = torch.maximum(self.largest, values.amax(0))
            return
        self.counted = self.counted or Histogram(self.largest)
        self.counted.add(values)

    def best(self) -> Tensor:
        """[rows]; a channel that never fired takes the mean of the others, so that it can come alive."""
        assert self.counted is not None  # it was shown everything twice
        found = nearest_quantised(self.counted, self.levels).clamp_min(SMALLEST)
        alive = self.largest > 0
        return torch.where(alive, found, found[alive].mean() if bool(alive.any()) else torch.ones_like(found[0]))
