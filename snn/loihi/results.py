"""What a simulation of chip integers gives: answers, activity, how far states went, and what was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engram.snn.loihi.populations import Extremes


@dataclass
class Activity:
    """What one population, or the input, sent in a run.

    Attributes:
        sent: float64 of its shape, messages other than zero of each neuron, over all images and steps.
        operations: synaptic operations they caused: each message times the weights, other than zero, that it reaches.
    """

    sent: Tensor
    operations: float

    @property
    def spikes(self) -> float:
        """Messages of all neurons."""
        return float(self.sent.sum())


@dataclass
class Run:
    """What a simulation gave.

    Attributes:
        logits: [T, B, K] float32 after every step, in the units of the network that was quantised.
        images: how many.
        steps: that were simulated, on the chip's own time more than T.
        activity: of every population and `INPUT`, summed over images.
        extremes: of every population.
        kept: population -> what was asked for, [steps, B, *shape] on the CPU: ``spikes``, what was sent (uint8; int32
            of sigma-delta neurons); ``u``, ``v``, int32, the state at the end of the step (sigma and activation of
            sigma-delta neurons).
    """

    logits: Tensor
    images: int
    steps: int
    activity: Mapping[str, Activity]
    extremes: Mapping[str, Extremes]
    kept: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    @property
    def operations(self) -> float:
        """Synaptic operations of one image."""
        return sum(each.operations for each in self.activity.values()) / self.images


def joined(parts: Sequence[Run]) -> Run:
    """Runs of the images of a batch, one after the other, as one."""
    first = parts[0]
    activity = {
        name: Activity(sum(part.activity[name].sent for part in parts), sum(p.activity[name].operations for p in parts))  # type: ignore[arg-type]
        for name in first.activity
    }
    extremes = {name: Extremes() for name in first.extremes}
    for part in parts:
        for name, each in part.extremes.items():
            extremes[name].add(each)
    kept = {
        name: {what: torch.cat([part.kept[name][what] for part in parts], 1) for what in values}
        for name, values in first.kept.items()
    }
    logits = torch.cat([part.logits for part in parts], 1)
    return Run(logits, sum(part.images for part in parts), first.steps, activity, extremes, kept)
