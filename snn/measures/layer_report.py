"""What conversion did to every layer, on images: error against the analog layer, silent and full neurons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Row
from engram.snn.neurons.integrate_fire import IntegrateFire, per_neuron


class LayerReport:
    """Sums over images for every neuron layer; float64, whatever the batches' sizes.

    Args:
        neurons: the layers by name, in the order they run.
    """

    def __init__(self, neurons: Mapping[str, IntegrateFire]) -> None:
        self.neurons = dict(neurons)
        device = next(iter(self.neurons.values())).threshold.device
        # squared errors, squared activations, saturated neurons, neurons
        self.sums = torch.zeros(len(self.neurons), 4, dtype=torch.float64, device=device)
        self.fired: dict[str, Tensor] = {}

    def add(self, rates: Mapping[str, Tensor], analog: Mapping[str, Tensor]) -> None:
        """rates: layer -> [B, C, ...] mean spikes per step; analog: layer -> [B, C, ...] the activations."""
        for place, (name, neurons) in enumerate(self.neurons.items()):
            rate, wanted = rates[name], analog[name]
            error = torch.addcmul(wanted, rate, per_neuron(neurons.threshold, rate), value=-1)
            full = rate >= 1 - 1e-6  # a mean of ones may be rounded
            found = (error.square(), wanted.square(), full, torch.ones_like(full))
            self.sums[place] += torch.stack([value.sum(dtype=torch.float64) for value in found])
            fired = (rate > 0).any(0)
            self.fired[name] = fired if name not in self.fired else self.fired[name] | fired

    def rows(self) -> list[dict[str, Any]]:
        """One row per layer: its neurons, thresholds, relative error, saturated and silent shares."""
        rows = []
        for (name, neurons), sums in zip(self.neurons.items(), self.sums.tolist(), strict=True):
            error, square, full, count = sums
            theta, fired = neurons.threshold, self.fired[name]
            row: Row = {
                "layer": name,
                "neurons": fired.numel(),
                "threshold_min": float(theta.min()),
                "threshold_mean": float(theta.mean()),
                "threshold_max": float(theta.max()),
                "relative_error": (error / square) ** 0.5 if square else 0.0,
                "saturated_share": full / count,
                "silent_share": 1 - float(fired.double().mean()),
            }
            rows.append(dict(row))
        return rows

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums.cpu(), "fired": {name: fired.cpu() for name, fired in self.fired.items()}}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.sums.copy_(saved["sums"])
        self.fired = {name: fired.to(self.sums.device) for name, fired in saved["fired"].items()}
