"""What a trained spiking network does on a set of images: accuracy against steps, spikes, synaptic operations."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase

from backbone.anytime import StepScores, logits_at
from backbone.contract import Figure, Row
from backbone.nets.classifier import Classifier
from backbone.nets.folding import bake, fold_batchnorm
from snn.counting import Tally, synapses
from snn.network import SpikingActivation, SpikingNetwork
from snn.neurons import IntegrateFire

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


class Survey:
    """Running counts over images; the network does not change.

    Args:
        model: a classifier around a `SpikingNetwork`, in evaluation mode on its device.
        points: ascending step numbers; the last is how many steps an image takes.
    """

    def __init__(self, model: Classifier, points: Sequence[int]) -> None:
        assert isinstance(model.backbone, SpikingNetwork)
        self.model, self.net, self.points = model, model.backbone, list(points)
        self.structure = synapses(wiring(self.net), model.head, self.net.in_shape)  # type: ignore[arg-type]
        self.scores, self.tally = StepScores(points), Tally(self.structure.fan_out, points)
        self.fired = {name: torch.zeros_like(fan, dtype=torch.bool) for name, fan in self.structure.fan_out.items()}
        self.saturated = dict.fromkeys(self.fired, 0.0)

    @torch.inference_mode()
    def add(self, images: Tensor, labels: Tensor) -> None:
        """images: [B, C, H, W] or [B, T, C, H, W] as the model takes them; labels: [B] int64."""
        features = self.net.forward_steps(self.model.normalise(images), self._watch)
        self.scores.add(logits_at(self.model, features, self.points), labels)

    def _watch(self, name: str, spikes: Tensor) -> None:
        counts = spikes.sum(0)
        self.fired[name] |= counts.amax(0) > 0
        self.saturated[name] += float((counts == len(spikes)).sum())
        self.tally.add(name, spikes)

    def curve(self) -> list[Row]:
        """Per number of steps: accuracy, loss (nat), and spikes and synaptic operations of an image up to then."""
        neurons = sum(fired.numel() for fired in self.fired.values())
        images = self.scores.images
        spikes, operations = (sums.sum(0).tolist() for sums in (self.tally.spikes, self.tally.operations))
        return [
            {
                **row,
                "spikes": spikes[k] / images,
                "spikes_per_neuron_per_step": spikes[k] / (images * neurons * self.points[k]),
                "synaptic_operations": operations[k] / images,
            }
            for k, row in enumerate(self.scores.rows())
        ]

    def layers(self) -> list[Row]:
        """Per neuron layer: how often neurons fire; how many never do; how often one fires at every step."""
        images, steps = self.scores.images, self.points[-1]
        rows: list[Row] = []
        for place, (name, fired) in enumerate(self.fired.items()):
            count = fired.numel()
            rows.append(
                {
                    "layer": name,
                    "neurons": count,
                    "firing_rate": float(self.tally.spikes[place, -1]) / (images * count * steps),
                    "silent_share": float((~fired).float().mean()),
                    "saturated_share": self.saturated[name] / (images * count),
                    "synaptic_operations": float(self.tally.operations[place, -1]) / images,
                }
            )
        return rows

    def figures(self) -> dict[str, Figure]:
        rows = self.curve()
        accuracy = [(float(row["steps"] or 0), float(row["accuracy"] or 0)) for row in rows]
        operations = [(float(row["steps"] or 0), float(row["synaptic_operations"] or 0)) for row in rows]
        x_label = "simulation steps T"
        return {
            "accuracy_vs_steps": Figure(
                title="Accuracy against simulation steps",
                x_label=x_label,
                y_label="test accuracy",
                series={"spiking network": accuracy},
                x_scale="log2",
            ),
            "operations_vs_steps": Figure(
                title="Synaptic operations against simulation steps",
                x_label=x_label,
                y_label="operations per image",
                series={"spiking network": operations},
                lines={"multiplications of the analog network": float(self.structure.macs)},
                x_scale="log2",
            ),
        }


def wiring(net: SpikingNetwork) -> fx.GraphModule:
    """A copy of a network's graph for counting its synapses: composed layers plain, normalisation in the weights.

    What cannot be folded into weights is left out: scaling a synapse makes no other one of it.
    """
    graph = bake(copy.deepcopy(net.graph).float())
    for name, module in list(graph.named_modules()):
        if isinstance(module, SpikingActivation):
            graph.set_submodule(name, IntegrateFire(torch.ones(1), torch.zeros(1, dtype=torch.bool)))
    assert isinstance(graph, fx.GraphModule)
    graph = fold_batchnorm(graph)
    for name, module in list(graph.named_modules()):
        if isinstance(module, _NORMS):
            graph.set_submodule(name, nn.Identity())
    return graph
