"""Spike times of some neurons on the first images, as a figure."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.backbone.contract import Raster

IMAGES = 4
NEURONS = 24
"""Of a layer, evenly chosen."""


class SpikeTimes:
    """Keeps what comes first of every layer, and nothing after that."""

    def __init__(self) -> None:
        self.steps = self.images = 0
        self.trains: dict[str, list[list[float]]] = {}

    def add(self, layer: str, spikes: Tensor) -> None:
        """spikes: [T, B, C, ...] in {0, 1}; images stand one after another on the time axis, from step 1 on."""
        if layer in self.trains:
            return
        self.steps, self.images = len(spikes), min(IMAGES, spikes.shape[1])
        flat = spikes[:, : self.images].flatten(2)  # [T, images, neurons]
        count = min(NEURONS, flat.shape[2])
        chosen = torch.arange(count, device=flat.device) * flat.shape[2] // count
        fired = flat[:, :, chosen].transpose(0, 1).flatten(0, 1).cpu() != 0  # [images * T, neurons]
        self.trains[layer] = [(train.nonzero().flatten() + 1.0).tolist() for train in fired.T]

    def figure(self) -> Raster:
        several = f"; {self.images} images, one after another, {self.steps} steps each" if self.images > 1 else ""
        return Raster(
            title=f"Spikes of {NEURONS} neurons a layer on the first test images",
            x_label=f"step{several}",
            start=0.0,
            end=float(self.steps * self.images) + 0.5,
            groups=self.trains,
        )
