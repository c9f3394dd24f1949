"""A network in the integers of Loihi 2: populations with their states' parameters, synapses with their weights.

Every connection has a time: what is sent at step t arrives at step t + ``delay`` of the *network's* time, in which
layers without delay between them see one input step at the same step. The chip adds a step a layer: `offsets` says how
far each population's own time lies behind (`chip_delay` what a connection's delay is there).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

INPUT = "input"
"""The source that stands for what is sent from outside."""


@dataclass(frozen=True, kw_only=True)
class LIF:
    """Leaky integrate-and-fire neurons in 24-bit integers, as Lava's ``LIF`` with ``fixed_pt`` (`arithmetic`).

    Attributes:
        du, dv: 0 to 4095; du = 4095: no current is kept, dv = 0: no potential is lost.
        vth: threshold mantissa, 0 to 131071; a neuron fires when v > 64 vth.
        bias: int32 [1], [C] or [C, H, W], mantissas -4096 to 4095, added to v as bias 2 ** bias_exp at every step.
        bias_exp: 0 to 7.
        start: int32 [1], [C] or [C, H, W], v before the first step.
        reset: hard sets v to 0; soft subtracts 64 (vth + 1), which stock Lava has no neuron for.
    """

    du: int = 4095
    dv: int = 0
    vth: int
    bias: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int32))
    bias_exp: int = 6
    start: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int32))
    reset: Literal["hard", "soft"] = "hard"
    refractory: int = 0


@dataclass(frozen=True, kw_only=True)
class SigmaDelta:
    """Neurons that send what their activation has changed by, as Lava's ``SigmaDelta`` with ``fixed_pt``.

    Attributes:
        vth: a change of at least this is sent (in units of what is sent).
        bias: int32 [1], [C] or [C, H, W].
        spike_exp, state_exp: binary scales of message and state.
        activation: relu, or unit (none).
    """

    vth: int
    bias: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int32))
    spike_exp: int = 0
    state_exp: int = 0
    activation: Literal["relu", "unit"] = "relu"
    cum_error: bool = False


@dataclass(frozen=True, kw_only=True)
class Integrator:
    """Neurons whose potential is read and that never fire: v[t] = v[t-1] + (a[t] << 6) + (bias << bias_exp), 24 bits.

    On the chip it is a LIF neuron with du = 4095, dv = 0 and the largest threshold.
    """

    bias: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int32))
    bias_exp: int = 6


Neurons = LIF | SigmaDelta | Integrator


@dataclass(frozen=True, kw_only=True)
class Synapses:
    """Weights from one population to another.

    What arrives is ``a = (sum of W s) << exponent``, shifted right where the exponent is negative.

    Attributes:
        source: a population's name, or `INPUT`.
        kind: ``dense``: weight int32 [out, in] over both sides flattened in the order C, H, W; ``conv``: weight int32
            [O, I / groups, kH, kW] as torch's `conv2d` applies it (cross-correlation).
        in_shape: (C, H, W) or (N,) of the source.
        exponent: dense and conv alike; Lava's convolution ignores its own, so it is folded in there.
        weight_bits: that the weights were rounded to.
        delay: steps in the network's time, for all synapses.
        delays: dense only, int32 [out, in]: steps on top, for each synapse.
        stride, padding, dilation: (y, x).
    """

    source: str
    kind: Literal["dense", "conv"]
    weight: Tensor
    in_shape: tuple[int, ...]
    exponent: int = 0
    weight_bits: int = 8
    delay: int = 0
    delays: Tensor | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, kw_only=True)
class Population:
    """Neurons of one kind with all that reaches them.

    Attributes:
        shape: (C, H, W) or (N,).
        scale: what 1 in v (an integrator), in a spike (LIF) or in what is sent (sigma-delta) stands for in the network
            that was quantised.
    """

    name: str
    shape: tuple[int, ...]
    neurons: Neurons
    synapses: tuple[Synapses, ...]
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Input:
    """What is sent into the network at every step: whole numbers of so many bits, one for each place.

    Attributes:
        shape: (C, H, W).
        bits: of a message; 1: spikes.
        encoding: ``value``: the numbers as they are, at every step; ``delta``: what they have changed by since the step
            before (sigma-delta networks).
        gain, offset: the whole number for a value x of an image is round(gain x + offset).
    """

    shape: tuple[int, ...]
    bits: int = 8
    signed: bool = False
    encoding: Literal["value", "delta"] = "value"
    gain: float = 1.0
    offset: float = 0.0

    def whole(self, images: Tensor) -> Tensor:
        """Images as the whole numbers that are sent, int32 of the same shape, cut to the range of the bits."""
        least, most = (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)
        return (images.double() * self.gain + self.offset).round().clamp(least, most).to(torch.int32)


@dataclass(frozen=True, kw_only=True)
class ChipNetwork:
    """A whole network, populations in an order in which sources without delay come first. The last one is read out.

    Attributes:
        steps: of a still image, which is sent at every one.
        delay: steps the read-out leaves out at the beginning.
        readout: ``potential``: of an integrator (or sigma of a sigma-delta neuron); ``spikes``: their count.
        frames: images are sequences, a step each.
        notes: what the quantiser replaced or approximated, one line each.
    """

    input: Input
    populations: tuple[Population, ...]
    steps: int
    delay: int = 0
    readout: Literal["potential", "spikes"] = "potential"
    frames: bool = False
    notes: tuple[str, ...] = ()

    def population(self, name: str) -> Population:
        """The population of that name."""
        return next(each for each in self.populations if each.name == name)


def offsets(network: ChipNetwork) -> Mapping[str, int]:
    """How many steps each population's time lies behind the input's on the chip, where every synapse takes a step.

    The smallest numbers with ``offset(target) + delay >= offset(source) + 1`` for every connection without delay.
    Connections with a delay wait for the rest of it there (`chip_delay`).

    Returns: name -> steps; `INPUT` is 0.
    """
    found = {INPUT: 0}
    for each in network.populations:
        direct = [found[one.source] for one in each.synapses if one.delay == 0]
        found[each.name] = max(direct, default=0) + 1
    return found


def chip_delay(network: ChipNetwork, synapses: Synapses, target: str) -> int:
    """Steps between sending and arriving on the chip, at least 1 where the network can run there."""
    found = offsets(network)
    return found[target] - found[synapses.source] + synapses.delay
