"""Options of the adapters ``snn.qcfs`` and ``snn.spiking``; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from engram.snn.neurons.options import NeuronOptions


@dataclass(frozen=True, kw_only=True)
class QCFSOptions:
    """Quantised activations that integrate-and-fire neurons repeat exactly."""

    levels: Annotated[int, Ge(1), Le(256)] = 4
    """Quantisation levels L; the converted network is nearest to this one at L simulation steps."""
    per: Literal["channel", "layer"] = "channel"
    """One learnable threshold for each channel or for each layer."""
    threshold: Annotated[float, Gt(0)] | None = None
    """Every threshold's first value (the paper's is 8); None: what quantises the training images' activations best."""


@dataclass(frozen=True, kw_only=True)
class SpikingOptions(NeuronOptions):
    """A network of spiking neurons, trained by backpropagation through time."""

    steps: Annotated[int, Ge(1), Le(4096)] = 4
    """Simulation steps T of a still image, fed as a constant; a recording has as many as it has frames."""
    start: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Potential before the first step, as a share of the threshold; 0.5 makes an IF neuron's spike count round."""
    learn_scale: bool = False
    """Divide the drive of every layer by a learned scale per channel, and multiply its spikes by it. In a network that
    is trained already the scales start from its activations."""
    truncate: Annotated[int, Ge(1)] | None = None
    """Cut the gradient between neurons' steps every so many steps."""
    checkpoint_steps: Annotated[int, Ge(1)] | None = None
    """Keep neurons' states every so many steps only and compute the rest again in the backward pass: memory then grows
    with the number of states kept. Batch normalisation works on so many steps at a time."""
