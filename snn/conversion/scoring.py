"""A converted network beside the one it was made from, on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Figure, Row, Wrapping
from engram.backbone.measures import anytime
from engram.backbone.measures.answers import Answers, beside
from engram.backbone.measures.anytime import StepScores
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.heads import as_linear
from engram.snn.conversion.calibration import activations
from engram.snn.conversion.convert import full_float32, lower
from engram.snn.conversion.recurrence import LastStep, Recurrent, dense_macs, inside
from engram.snn.measures.costs import InputLayer, analog, costs, operations, spikes_sent, spiking_memory
from engram.snn.measures.layer_report import LayerReport
from engram.snn.measures.neurobench import Workload
from engram.snn.simulation.counting import Tally, synapses
from engram.snn.simulation.network import SpikingBackbone

LARGEST_CHUNK = 512


class Scoring:
    """Sums over images of what both networks answer and do; the networks never change.

    Args:
        analog: the network that was converted.
        spiking: what `engram.snn.conversion.convert.convert` made of it.
        steps: simulation steps T, of recordings frames; everything is known for 1, 2, 4, ... up to it.
        input_layer: how often layers in front of the first neurons compute, see `engram.snn.measures.costs.costs`.

    Attributes:
        answers: what the spiking network answers; ``answers.points`` are the numbers of steps of the rows of `curve`.
        held: what it answers to validation images, which count for nothing else.
        effective_macs: of the analog network on all images: multiplications of values that are not zero.
    """

    def __init__(self, analog: Classifier, spiking: Classifier, steps: int, input_layer: InputLayer = "once") -> None:
        recurrent = Recurrent(spiking.backbone) if isinstance(spiking.backbone, Wrapping) else None
        net = spiking.backbone if recurrent is None else recurrent.inner
        assert isinstance(net, SpikingBackbone)  # a conversion makes no other
        self.analog, self.spiking, self.net, self.steps = analog, spiking, net, steps
        self.recurrent, self.running = recurrent, recurrent or net
        self.input_layer: InputLayer = input_layer
        self.graph = lower(inside(analog.backbone))
        self.last_step = LastStep(analog.backbone, self.graph) if recurrent else None
        self.head = as_linear(spiking.head, "snn.convert")
        self.structure = synapses(net.graph, self.head, net.in_shape)
        self.analog_scores, self.answers = StepScores([1]), Answers(spiking, steps)
        self.held_analog, self.held = StepScores([1]), Answers(spiking, steps)
        self.tally = Tally(self.structure.fan_out, self.answers.points)
        self.rates = LayerReport(net.neurons())
        self.effective_macs = 0

    @property
    def images(self) -> int:
        """How many images were added, validation images not counted."""
        return self.answers.images

    @property
    def chunk(self) -> int:
        """How many images to add at once, within the memory set aside."""
        return min(LARGEST_CHUNK, self.net.chunk(self.steps))

    def add(self, x: Tensor, labels: Tensor | None = None, frames: Tensor | None = None) -> None:
        """Run both networks on a chunk of images.

        Args:
            x: [B, C, H, W] normalised, or recordings [B, T, C, H, W] as both networks see them.
            labels: [B] int64; by default what the analog network answers, so that accuracies are shares of images on
                which both agree.
            frames: [B, T, C, H, W] normalised, what the spiking network sees in place of the images.
        """
        with torch.inference_mode(), full_float32():
            with Workload(self.analog) as work:
                analog = self.analog.forward_normalised(x)
            labels = analog.argmax(1) if labels is None else labels
            self.effective_macs += work.effective
            self.analog_scores.add(analog.unsqueeze(0), labels)
            features, rates = self.running.observe(x if frames is None else frames, self.tally)
            stills = x.flatten(0, 1).contiguous(memory_format=torch.channels_last) if x.ndim == 5 else x
            names = list(rates)
            wanted = self.last_step.activations(stills, names) if self.last_step else None
            self.rates.add(rates, activations(self.graph, stills, names) if wanted is None else wanted)
            self.answers.add(features, labels)

    def add_held(self, x: Tensor, labels: Tensor, frames: Tensor | None = None) -> None:
        """Run both networks on a chunk of validation images, for their accuracies alone; arguments as of `add`."""
        with torch.inference_mode(), full_float32():
            self.held_analog.add(self.analog.forward_normalised(x).unsqueeze(0), labels)
            self.held.add(self.running.simulate(x if frames is None else frames), labels)

    @property
    def held_accuracy(self) -> float:
        """Of the spiking network after all steps, on the validation images so far; a fraction."""
        return float(self.held.scores.rows()[-1]["accuracy"] or 0)

    def curve(self) -> list[Row]:
        """What stopping after each number of steps gives: accuracies as fractions, spikes and operations per image."""
        reference = _accuracy(self.analog_scores)
        sent = spikes_sent(self.structure, self.tally, self.images)
        caused = operations(self.structure, self.tally, self.images)
        rows: list[Row] = [
            {
                "steps": row["steps"],
                "accuracy": row["accuracy"],
                "ann_accuracy": reference,
                "drop_points": 100 * (reference - float(row["accuracy"])),  # type: ignore[arg-type]
                "spikes_per_neuron_per_step": sent[k]
                / (self.structure.neurons * self.simulated(self.answers.points[k])),
                "synaptic_operations": caused[k],
            }
            for k, row in enumerate(self.answers.scores.rows())
        ]
        if not self.held.images:
            return rows
        analog = _accuracy(self.held_analog)
        return [
            {**row, "validation_ann_accuracy": analog} for row in beside(rows, self.held.scores.rows(), ["accuracy"])
        ]

    def layers(self) -> list[Row]:
        """What conversion did to every layer of neurons, and what it fires and causes per image in all steps."""
        rows, steps = self.rates.rows(), self.simulated(self.answers.points[-1])
        for row in rows:
            spikes, caused = self.tally.of(row["layer"])
            row["firing_rate"] = spikes / (self.images * row["neurons"] * steps)
            row["synaptic_operations"] = caused / self.images
        return [*rows]

    def costs(self) -> list[Row]:
        """What one image costs in both networks, the spiking one after each number of steps of the simulation."""
        frames = self.steps if self.net.frames == "anew" else 1
        reference = analog(self.graph, self.head, self.net.in_shape, self.effective_macs / self.images, frames)
        if self.recurrent is not None:
            reference = replace(reference, macs=dense_macs(self.analog, self.net.in_shape))
        return costs(
            reference,
            self.structure,
            spiking_memory(self.net.graph, self.head, self.structure, self.input_layer),
            [self.simulated(steps) for steps in self.answers.points],
            operations(self.structure, self.tally, self.images),
            input_layer=self.input_layer,
            frame_steps=self.net.steps,
            link_macs=self.recurrent.link_macs() if self.recurrent else 0,
        )

    def simulated(self, steps: int) -> int:
        """All steps of the simulation that an image takes: those beforehand count like any others."""
        return self.net.pre_simulation + self.net.simulated(steps)

    def state_dict(self) -> dict[str, Any]:
        return {
            "analog": self.analog_scores.state_dict(),
            "spiking": self.answers.state_dict(),
            "held_analog": self.held_analog.state_dict(),
            "held": self.held.state_dict(),
            "tally": self.tally.state_dict(),
            "layers": self.rates.state_dict(),
            "effective_macs": self.effective_macs,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.analog_scores.load_state_dict(saved["analog"])
        self.answers.load_state_dict(saved["spiking"])
        self.held_analog.load_state_dict(saved["held_analog"])
        self.held.load_state_dict(saved["held"])
        self.tally.load_state_dict(saved["tally"])
        self.rates.load_state_dict(saved["layers"])
        self.effective_macs = int(saved["effective_macs"])


def _accuracy(scores: StepScores) -> float:
    """Of a network without steps."""
    (row,) = scores.rows()
    return float(row["accuracy"] or 0)


def figure(curve: list[Row], y_label: str = "test accuracy") -> Figure:
    """The rows of `Scoring.curve` as a chart."""
    return anytime.figure(curve, y_label, "spiking network", {"analog network": float(curve[-1]["ann_accuracy"] or 0)})
