"""What messages become on their way through synapses: exact sums of whole numbers, made by layers of floats.

A float32 holds every whole number up to 2 ** 24, a float64 up to 2 ** 53. While the weights that one neuron sees, times
the largest message, stay below that, every partial sum is exact, whatever the order of summation: so a convolution may
be dense, or follow the spikes, and gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from engram.backbone.errors import must
from engram.snn.loihi.arithmetic import HALF, clamped, shifted
from engram.snn.loihi.layers import Layer, layer
from engram.snn.loihi.network import Synapses
from engram.snn.simulation import events
from engram.snn.simulation.events import Spikes

EXACT_FLOAT, EXACT_DOUBLE = 2**24, 2**53


@dataclass(frozen=True)
class Sent:
    """What a population, or the input, sends.

    Attributes:
        messages: [T, B, *shape], or [1, B, *shape] that are the same at every step; whole numbers of any type.
        largest: no |message| is larger.
        count: float64 [*shape], how many are not zero, over images and steps.
    """

    messages: Tensor
    largest: int
    count: Tensor

    @cached_property
    def spikes(self) -> Spikes | None:
        """The messages as bytes with the channels last, where they are spikes on a CPU that can follow them."""
        data = self.messages
        if data.dtype != torch.uint8 or self.largest > 1 or data.device.type != "cpu" or events.library() is None:
            return None
        return Spikes(data.movedim(2, -1).contiguous(), int(self.count.sum()))


@dataclass(frozen=True)
class Wires:
    """Synapses on a device, ready to be sent through.

    Args:
        synapses: those of the network.
        shape: of the population that is reached.
        device: where messages are.
    """

    synapses: Synapses
    shape: tuple[int, ...]
    device: torch.device

    def send(self, sent: Sent) -> Mapping[int, Tensor]:
        """What arrives, by how many steps later; with ``delays`` there are several.

        Returns: steps -> [T or 1, B, *shape] float32 or int32, whole numbers.

        Raises:
            UserError: sums might not be exact.
        """
        bound = self._most * sent.largest
        if bound >= EXACT_DOUBLE:
            raise must(
                "sums of weights times messages", "below 2 ** 53", f"up to {bound}", "Use smaller weights or messages."
            )
        times = sent.messages.shape[:2]
        return {
            delay: self._scaled(self._sums(sent, one, bound).reshape(*times, *self.shape), bound)
            for delay, one in self._layers.items()
        }

    def _sums(self, sent: Sent, one: Layer, bound: int) -> Tensor:
        """[T * B, O, ...]: exact sums, in float32 or float64."""
        messages = sent.messages.flatten(0, 1)
        if bound >= EXACT_FLOAT or self.device.type != "cpu":
            return one.through(messages, torch.float64).round()
        return one.through(messages, torch.float32) if sent.spikes is None else one.followed(sent.spikes)

    def _scaled(self, total: Tensor, bound: int) -> Tensor:
        """Shifted by the exponent, and cut to the bits that arrive."""
        exponent, conv = self.synapses.exponent, self.synapses.kind == "conv"
        if exponent == 0 and bound < (HALF if conv else EXACT_FLOAT):
            return total.float()
        found = shifted(total.long(), exponent)
        return clamped(found.long()) if conv else found

    @cached_property
    def _layers(self) -> Mapping[int, Layer]:
        """Steps later -> the weights that wait so long."""
        one, weight = self.synapses, self.synapses.weight.to(self.device)
        if one.delays is None:
            return {one.delay: layer(one, weight)}
        at, steps = one.delays.to(self.device), sorted(set(one.delays.flatten().tolist()))
        return {one.delay + k: layer(one, torch.where(at == k, weight, 0)) for k in steps}

    @cached_property
    def _most(self) -> int:
        """The weights that one neuron sees, without their signs."""
        return int(self.synapses.weight.long().abs().flatten(1).sum(1).max())

    @cached_property
    def fan_out(self) -> Tensor:
        """float64 of the source's shape: synapses that one message reaches, exact at the borders of a picture."""
        one = self.synapses
        with torch.enable_grad(), torch.inference_mode(False):
            there = layer(one, (one.weight != 0).double())
            ones = torch.ones(1, *one.in_shape, dtype=torch.float64, requires_grad=True)
            (found,) = torch.autograd.grad(there.through(ones, torch.float64).sum(), ones)
        return found[0].to(self.device)
