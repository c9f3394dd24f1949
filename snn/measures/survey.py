"""What a trained spiking network does on a set of images: accuracy against steps, spikes, synaptic operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engram.backbone.contract import AnyFigure, Bars, Figure, Row, Site
from engram.backbone.measures.anytime import StepScores, logits_at
from engram.backbone.nets.classifier import Classifier
from engram.snn.measures.costs import operations, spikes_sent
from engram.snn.measures.counting import Tally, synapses
from engram.snn.measures.raster import SpikeTimes
from engram.snn.training.network import SpikingNetwork


class Survey:
    """Running counts over images; the network does not change.

    Args:
        model: a classifier around a `SpikingNetwork`, in evaluation mode on its device.
        points: ascending step numbers; the last is how many steps an image takes.

    Attributes:
        passes: of the analog network that do the same: one for a still image, one for every frame of a recording.
    """

    def __init__(self, model: Classifier, points: Sequence[int]) -> None:
        assert isinstance(model.backbone, SpikingNetwork)
        self.model, self.net, self.points = model, model.backbone, list(points)
        self.structure = synapses(self.net.graph, model.head, self.net.in_shape)  # type: ignore[arg-type]
        self.scores, self.tally = StepScores(points), Tally(self.structure.fan_out, points)
        layers = {name: self.structure.fan_out[name] for name in self.net.neurons()}
        self.fired = {name: torch.zeros_like(fan, dtype=torch.bool) for name, fan in layers.items()}
        self.saturated = dict.fromkeys(self.fired, 0.0)
        self.times = SpikeTimes()
        self.passes = 1

    @torch.inference_mode()
    def add(self, images: Tensor, labels: Tensor) -> None:
        """images: [B, C, H, W] or [B, T, C, H, W] as the model takes them; labels: [B] int64."""
        self.passes = images.shape[1] if images.ndim == 5 else 1
        x = self.model.normalise(images)
        steps = x.shape[1] if x.ndim == 5 else self.net.steps
        parts = [
            self.net.run_tapped(part, {}, steps, self._watch, nodes=True)[0] for part in x.split(self.net.chunk(steps))
        ]
        self.scores.add(logits_at(self.model, torch.cat(parts, 1), self.points), labels)

    def _watch(self, site: Site, value: Tensor) -> Tensor:
        """A tap that counts."""
        name = site.name.removeprefix("graph.")
        if name in self.structure.relays:
            self.tally.add(name, value != 0)
        elif name in self.fired:
            self._count(name, value)
        return value

    def _count(self, name: str, spikes: Tensor) -> None:
        """spikes: [T, B, C, ...] in {0, 1} of a layer of neurons."""
        counts = spikes.sum(0)
        self.fired[name] |= counts.amax(0) > 0
        self.saturated[name] += float((counts == len(spikes)).sum())
        self.tally.add(name, spikes)
        self.times.add(name, spikes)

    def curve(self) -> list[Row]:
        """Per number of steps: accuracy, loss (nat), and spikes and synaptic operations of an image up to then."""
        neurons, images = self.structure.neurons, self.scores.images
        sent, caused = (of(self.structure, self.tally, images) for of in (spikes_sent, operations))
        return [
            {
                **row,
                "spikes": sent[k],
                "spikes_per_neuron_per_step": sent[k] / (neurons * self.points[k]),
                "synaptic_operations": caused[k],
            }
            for k, row in enumerate(self.scores.rows())
        ]

    def layers(self) -> list[Row]:
        """Per neuron layer: how often neurons fire; how many never do; how often one fires at every step."""
        images, steps = self.scores.images, self.points[-1]
        rows: list[Row] = []
        for name, fired in self.fired.items():
            count, (spikes, operations) = fired.numel(), self.tally.of(name)
            rows.append(
                {
                    "layer": name,
                    "neurons": count,
                    "firing_rate": spikes / (images * count * steps),
                    "silent_share": float((~fired).float().mean()),
                    "saturated_share": self.saturated[name] / (images * count),
                    "synaptic_operations": operations / images,
                }
            )
        return rows

    def figures(self) -> dict[str, AnyFigure]:
        rows, layers = self.curve(), self.layers()
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
                lines={"multiplications of the analog network": float(self.structure.macs * self.passes)},
                x_scale="log2",
            ),
            "operations_by_layer": Bars(
                title="Synaptic operations that the spikes of each layer cause",
                x_label="layer",
                y_label="operations per image",
                names=[str(row["layer"]) for row in layers],
                series={"operations": [float(row["synaptic_operations"] or 0) for row in layers]},
            ),
            "spikes": self.times.figure(),
        }
