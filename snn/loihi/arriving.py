"""What messages become on their way through synapses: exact sums of whole numbers by torch's convolutions in floats.

A float32 holds every whole number up to 2 ** 24, a float64 up to 2 ** 53. While the weights that one neuron sees, times
the largest message, stay below that, every partial sum is exact, whatever the order of summation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.errors import must
from engram.snn.loihi.arithmetic import HALF, clamped, shifted
from engram.snn.loihi.network import Synapses

EXACT_FLOAT, EXACT_DOUBLE = 2**24, 2**53


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

    def send(self, messages: Tensor, largest: int) -> Mapping[int, Tensor]:
        """What arrives of messages, by how many steps later.

        Args:
            messages: [N, C, H, W] or [N, n] whole numbers of any type.
            largest: no |message| is larger.

        Returns: steps -> [N, *shape] float32 or int32, whole numbers; with ``delays`` more than one.

        Raises:
            UserError: sums might not be exact.
        """
        return {delay: self._through(messages, part, largest) for delay, part in self._parts.items()}

    def bound(self, largest: int) -> int:
        """No sum before shifting is larger than this, nor any part of it."""
        return self._most * largest

    def _through(self, messages: Tensor, weight: Tensor, largest: int) -> Tensor:
        exponent, bound = self.synapses.exponent, self.bound(largest)
        if bound >= EXACT_DOUBLE:
            raise must(
                "sums of weights times messages", "below 2 ** 53", f"up to {bound}", "Use smaller weights or messages."
            )
        exact = torch.float32 if bound < EXACT_FLOAT and self.device.type == "cpu" else torch.float64
        total = self._applied(messages.to(exact), weight.to(exact)).reshape(-1, *self.shape)
        conv = self.synapses.kind == "conv"
        if exponent == 0 and bound < (HALF if conv else EXACT_FLOAT):
            return total.float()
        found = shifted(total.round().long(), exponent)
        return clamped(found.long()) if conv else found

    def _applied(self, messages: Tensor, weight: Tensor) -> Tensor:
        """-> [N, C * H * W or C, H, W]: whatever flattens to the shape reached."""
        one = self.synapses
        if one.kind == "dense":
            return F.linear(messages.flatten(1), weight)
        if messages.ndim == 2:
            messages = messages.unflatten(1, one.in_shape)
        return F.conv2d(messages, weight, None, one.stride, one.padding, one.dilation, one.groups)

    @cached_property
    def _parts(self) -> Mapping[int, Tensor]:
        weight, delays = self.synapses.weight.to(self.device), self.synapses.delays
        if delays is None:
            return {self.synapses.delay: weight}
        at, steps = delays.to(self.device), sorted(set(delays.flatten().tolist()))
        return {self.synapses.delay + k: torch.where(at == k, weight, 0) for k in steps}

    @cached_property
    def _most(self) -> int:
        return int(self.synapses.weight.long().abs().flatten(1).sum(1).max())

    @cached_property
    def fan_out(self) -> Tensor:
        """float64 of the source's shape: synapses that one message reaches, exact at the borders of a picture."""
        there = (self.synapses.weight != 0).to(torch.float64)
        with torch.enable_grad(), torch.inference_mode(False):
            ones = torch.ones(1, *self.synapses.in_shape, dtype=torch.float64, requires_grad=True)
            reached = self._applied(ones, there.clone())
            (found,) = torch.autograd.grad(reached.sum(), ones)
        return found[0].to(self.device)
