"""Thresholds that quantise activations best, found while a network runs."""

from __future__ import annotations

import torch
from torch import Tensor

CANDIDATES = 40
SMALLEST = 1e-4


class LevelSearch:
    """The threshold of every row that gives the least squared error of L levels, over everything it is shown twice.

    The first time (``searching`` false) it looks for the largest activation, the second time it tries fractions of it.

    Args:
        rows: channels, or 1 for one threshold of the whole layer.
        levels: L.
    """

    def __init__(self, rows: int, levels: int) -> None:
        self.levels, self.searching = levels, False
        self.largest = torch.zeros(rows)
        self.errors = torch.zeros(CANDIDATES, rows)

    def add(self, activations: Tensor) -> None:
        """activations: [B, C, ...] >= 0."""
        values = activations.transpose(0, 1).flatten(1) if len(self.largest) > 1 else activations.reshape(1, -1)
        if not self.searching:
            self.largest = torch.maximum(self.largest, values.amax(1))
            return
        for place, theta in enumerate(self._candidates()):
            step = (theta / self.levels)[:, None]
            level = (values / step).add_(0.5).floor_().clamp_(max=self.levels)
            self.errors[place] += (level.mul_(step) - values).square_().sum(1)

    def best(self) -> Tensor:
        """[rows]; a channel that never fired takes the mean of the others, so that it can come alive."""
        found = self._candidates().gather(0, self.errors.argmin(0, keepdim=True)).squeeze(0)
        alive = self.largest > 0
        return torch.where(alive, found, found[alive].mean() if bool(alive.any()) else torch.ones_like(found[0]))

    def _candidates(self) -> Tensor:
        """[CANDIDATES, rows]: fractions of the largest activation, never zero."""
        fractions = torch.arange(1, CANDIDATES + 1) / CANDIDATES
        return fractions[:, None] * self.largest.clamp_min(SMALLEST)
