"""Populations of neurons and the affine connections between them, in floating point.

The common form between a trained network and everything outside of it: the quantiser, NIR and netx begin here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["spiking", "relu", "integrator"]
INPUT = "input"
"""The source that stands for images and frames, in [0, 1]: the whole numbers 0 to 255 that data consist of (grey
levels, or events of a frame) divided by 255, as `engram.backbone.nets.classifier.Normalise` takes them. 1 on a chip's
input is 1 / 255 here."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """What every neuron of a population does in a step with its drive x[t].

        i[t] = synaptic_decay i[t-1] + x[t]
        u[t] = decay v[t-1] + i[t] + current
        s[t] = u[t] >= threshold                      sends 1
        v[t] = u[t] - threshold s[t]  (soft)    or    0 where s[t]  (hard)

    A ``relu`` population sends max(x[t], 0) and keeps nothing; an ``integrator`` sends nothing: its potential, the sum
    of its drives (decay 1), is read.

    Attributes:
        threshold: [1] or [C], above 0.
        start: [1], [C] or [C, H, W], the potential before the first step.
        current: [1] or [C], added to the potential at every step.
        refractory: steps after a spike in which the potential stays and nothing fires.
    """

    kind: Kind
    decay: float = 1.0
    synaptic_decay: float = 0.0
    threshold: Tensor = field(default_factory=lambda: torch.ones(1))
    reset: Literal["soft", "hard"] = "soft"
    start: Tensor = field(default_factory=lambda: torch.zeros(1))
    current: Tensor = field(default_factory=lambda: torch.zeros(1))
    refractory: int = 0


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What one population sends to another passes affine layers.

    Attributes:
        source: a population's name, or `INPUT`.
        layers: of Conv2d, Linear, AvgPool2d, Flatten, in the order they act on [B, C, H, W] or [B, N], with biases.
        delay: steps until what is sent arrives; 0 is the same step. Connections without delay make no circle.
    """

    source: str
    layers: nn.Sequential
    delay: int = 0


@dataclass(frozen=True, kw_only=True)
class Population:
    """Neurons of one kind: their drive is the sum of what arrives.

    Attributes:
        name: that of the layer of neurons in the network it came from.
        shape: (C, H, W) or (N,) of one image's neurons.
    """

    name: str
    shape: tuple[int, ...]
    cells: Cells
    connections: tuple[Connection, ...]


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A classifier as populations, in an order in which sources without delay come first. The last one is read out.

    Attributes:
        in_shape: (C, H, W) of an image or a frame.
        steps: simulation steps of a still image, shown at every one of them; frames are one step each.
        delay: steps that the read-out leaves out at the beginning.
        readout: logits are the last population's potential over the steps counted (``mean``), or what it got at the
            last step alone (``last``).
        frames: images are sequences [T, C, H, W].
    """

    in_shape: tuple[int, int, int]
    populations: tuple[Population, ...]
    steps: int
    delay: int = 0
    readout: Literal["mean", "last"] = "mean"
    frames: bool = False
