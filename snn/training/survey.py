"""What a trained spiking network does on a set of images: accuracy against steps, spikes, synaptic operations."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.backbone.contract import AnyFigure, Bars, Figure, Row, Site
from engram.backbone.measures.answers import Answers
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.heads import as_linear
from engram.snn.measures.costs import operations, spikes_sent
from engram.snn.measures.raster import SpikeTimes
from engram.snn.simulation.counting import Tally, synapses
from engram.snn.training.network import SpikingNetwork


class Survey:
    """Running counts over images; the network does not change.

    Args:
        model: a classifier around a `SpikingNetwork`, in evaluation mode on its device.
        steps: how many steps an image takes.

    Attributes:
        answers: what the network answers; ``answers.points`` are the numbers of steps of the rows of `curve`.
        passes: of the analog network that do the same: one for a still image, one for every frame of a recording.
    """

    def __init__(self, model: Classifier, steps: int) -> None:
        assert isinstance(model.backbone, SpikingNetwork)
        self.model, self.net, self.answers = model, model.backbone, Answers(model, steps)
        self.structure = synapses(self.net.graph, as_linear(model.head, "counting spikes"), self.net.in_shape)
        self.tally = Tally(self.structure.fan_out, self.answers.points)
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
        self.answers.add(torch.cat(parts, 1), labels)

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

    def tables(self, held: Answers | None = None) -> dict[str, list[Row]]:
        """Those of `Answers.tables`, ``accuracy_vs_steps`` with what the answers cost, and the neuron layers."""
        tables = self.answers.tables(held)
        pairs = zip(tables["accuracy_vs_steps"], self.curve(), strict=True)
        return {**tables, "accuracy_vs_steps": [{**row, **cost} for row, cost in pairs], "layers": self.layers()}

    def curve(self) -> list[Row]:
        """Per number of steps: spikes and synaptic operations of an image up to then."""
        neurons, images = self.structure.neurons, self.answers.images
        sent, caused = (of(self.structure, self.tally, images) for of in (spikes_sent, operations))
        return [
            {
                "steps": steps,
                "spikes": sent[k],
                "spikes_per_neuron_per_step": sent[k] / (neurons * steps),
                "synaptic_operations": caused[k],
            }
            for k, steps in enumerate(self.answers.points)
        ]

    def layers(self) -> list[Row]:
        """Per neuron layer: how often neurons fire; how many never do; how often one fires at every step."""
        images, steps = self.answers.images, self.answers.points[-1]
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
        layers = self.layers()
        operations = [(float(row["steps"] or 0), float(row["synaptic_operations"] or 0)) for row in self.curve()]
        return {
            **self.answers.figures(network="spiking network"),
            "operations_vs_steps": Figure(
                title="Synaptic operations against steps",
                x_label="steps",
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
