"""The network of floats and the chip's on the same images: what both answer, and what the chip does for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Figure, Raster, Row
from engram.backbone.measures.anytime import StepScores, logits_at
from engram.backbone.measures.points import curve_steps
from engram.backbone.nets.classifier import Classifier
from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Integrator, SigmaDelta
from engram.snn.loihi.populations import Extremes
from engram.snn.loihi.results import Run
from engram.snn.loihi.simulator import Simulator
from engram.snn.lowering.network import Lowered
from engram.snn.lowering.running import steps
from engram.snn.measures.raster import IMAGES, SpikeTimes

_PLAIN = ("sent", "operations", "seconds", "times", "first_images")


class Beside:
    """Sums over images; the networks never change.

    Args:
        model: the network of floats, in evaluation mode on its device.
        lowered: the same as populations, for its spikes.
        chip: the network of integers.
        taken: steps that an image takes.
        device: where to compute.

    Attributes:
        points: numbers of steps after which both are scored.
        chip, floats: scores on test images; ``held_chip``, ``held_floats`` on validation images.
        sent, operations: of every population and the input, summed over test images.
        seconds: that the simulation of test images took.
    """

    def __init__(self, model: Classifier, lowered: Lowered, chip: ChipNetwork, taken: int, device: str) -> None:
        self.model, self.lowered, self.network, self.steps = model, lowered, chip, taken
        self.simulator = Simulator(chip, device)
        net: Any = model.backbone
        self.points = curve_steps(taken)
        self.float_points = self.points if net.steps > 1 or lowered.frames else [1]
        self.chip, self.held_chip = StepScores(self.points), StepScores(self.points)
        self.floats, self.held_floats = StepScores(self.float_points), StepScores(self.float_points)
        names = [INPUT, *(each.name for each in chip.populations)]
        self.sent: dict[str, float] = dict.fromkeys(names, 0.0)
        self.operations: dict[str, float] = dict.fromkeys(names, 0.0)
        self.extremes: dict[str, Extremes] = {}
        self.seconds = 0.0
        self.times: dict[str, list[list[float]]] = {}
        self.first_images = 0

    @property
    def images(self) -> int:
        """How many test images were added."""
        return self.chip.images

    @torch.inference_mode()
    def add(self, images: Tensor, labels: Tensor, held: bool = False) -> None:
        """Run both networks.

        Args:
            images: [B, C, H, W] or [B, T, C, H, W] as the split holds them; labels: [B] int64, of the outputs.
            held: they are validation images, which count for nothing else.
        """
        features = self.model.backbone.forward_steps(self.model.normalise(images))  # type: ignore[operator]
        (self.held_floats if held else self.floats).add(logits_at(self.model, features, self.float_points), labels)
        begun = time.perf_counter()
        run = self.simulator.run(images)
        logits = _read(self.network, run.logits)
        (self.held_chip if held else self.chip).add(logits[[point - 1 for point in self.points]], labels)
        if held:
            return
        self.seconds += time.perf_counter() - begun
        if not self.times:
            self._keep(images[:IMAGES])
        self._count(run)

    def _count(self, run: Run) -> None:
        for name, activity in run.activity.items():
            self.sent[name] += activity.spikes
            self.operations[name] += activity.operations
        for name, each in run.extremes.items():
            self.extremes.setdefault(name, Extremes()).add(each)

    def _keep(self, images: Tensor) -> None:
        """Spike times of the first images, on the chip and in floats, by population."""
        spiking = [each.name for each in self.network.populations if not isinstance(each.neurons, Integrator)]
        kept = self.simulator.run(images, keep=("spikes",)).kept
        trains = {("chip", name): kept[name]["spikes"] for name in spiking}
        named = [name for name in spiking if isinstance(self.network.population(name).neurons, LIF)]
        sent = [step.sent for step in steps(self.lowered, images)] if named else []  # activations have no spikes
        trains |= {("floats", name): torch.stack([each[name] for each in sent]) for name in named}
        self.first_images = len(images)
        for name in spiking:
            for where in ("chip", "floats"):
                if (where, name) in trains:
                    times = SpikeTimes()
                    times.add(name, trains[where, name] != 0)
                    self.times[f"{where} {name}"] = times.trains[name]

    def accuracy(self, scores: StepScores) -> float:
        """After the last step."""
        return float(scores.rows()[-1]["accuracy"] or 0)

    def curve(self) -> list[Row]:
        """Accuracies of both after each number of steps, as fractions."""
        floats = {row["steps"]: row for row in self.floats.rows()}
        last = self.floats.rows()[-1]
        held = {row["steps"]: row["accuracy"] for row in self.held_chip.rows()} if self.held_chip.images else {}
        rows: list[Row] = []
        for row in self.chip.rows():
            beside = floats.get(row["steps"], last)
            found: Row = {"steps": row["steps"], "loihi2": row["accuracy"], "float": beside["accuracy"]}
            rows.append({**found, **({"loihi2_validation": held[row["steps"]]} if held else {})})
        return rows

    def layers(self) -> list[Row]:
        """Of the input and every population: what is sent and caused for one image, and how far states went."""
        return [
            {
                "layer": name,
                "messages": self.sent[name] / self.images,
                "synaptic_operations": self.operations[name] / self.images,
                **(_told(self.extremes[name]) if name in self.extremes else {}),
            }
            for name in self.sent
        ]

    def raster(self) -> Raster:
        """Spikes of some neurons of every layer, on the chip and in floats, one below the other."""
        several = f"; {self.first_images} images, one after another, {self.steps} steps each"
        return Raster(
            title="Spikes on the chip, and of the same neurons in floats",
            x_label=f"step{several if self.first_images > 1 else ''}",
            start=0.0,
            end=float(self.steps * self.first_images) + 0.5,
            groups=self.times,
        )

    def figure(self, lines: Mapping[str, float]) -> Figure:
        """Accuracy against steps, beside the accuracies ``lines`` of other networks."""
        rows = self.curve()
        series = {
            "Loihi 2 integers": [(float(row["steps"] or 0), float(row["loihi2"] or 0)) for row in rows],
            **(
                {"floats": [(float(row["steps"] or 0), float(row["float"] or 0)) for row in rows]}
                if len(self.float_points) > 1
                else {}
            ),
        }
        return Figure(
            title="Accuracy against steps",
            x_label="steps",
            y_label="test accuracy",
            series=series,
            lines=lines,
            x_scale="log2",
        )

    def state_dict(self) -> dict[str, Any]:
        scores = ("chip", "held_chip", "floats", "held_floats")
        return {
            **{name: getattr(self, name).state_dict() for name in scores},
            **{name: getattr(self, name) for name in _PLAIN},
            "extremes": {name: asdict(each) for name, each in self.extremes.items()},
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        for name in ("chip", "held_chip", "floats", "held_floats"):
            getattr(self, name).load_state_dict(saved[name])
        for name in _PLAIN:
            setattr(self, name, saved[name])
        self.extremes = {name: Extremes(**each) for name, each in saved["extremes"].items()}


def _read(network: ChipNetwork, logits: Tensor) -> Tensor:
    """What is answered after each step, [T, B, K]: of frames, the mean of what sigma-delta neurons say of each."""
    if not network.frames or not isinstance(network.populations[-1].neurons, SigmaDelta):
        return logits
    counted = torch.arange(1, len(logits) + 1, device=logits.device, dtype=logits.dtype)
    return logits.cumsum(0) / counted.view(-1, 1, 1)


def _told(extremes: Extremes) -> Row:
    """How far states went, as columns."""
    return {"largest_u": extremes.u, "largest_v": extremes.v, "wrapped": extremes.wrapped, "clipped": extremes.clipped}
