"""The nodes of a NIR graph as modules; time comes first, [T, B, ...]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.snn.interchange.nir.cells import Cells, cells_of
from engram.snn.interchange.nir.graph import NEURONS, Node
from engram.snn.interchange.nir.interpreter import steps_of
from engram.snn.interchange.nir.semantics import Semantics
from engram.snn.interchange.nir.shapes import borders, dilations, flattened_axes, strides
from engram.snn.neurons.options import Surrogate
from engram.snn.neurons.surrogates import spike


class Memory(NamedTuple):
    """What neurons carry from step to step, [B, ...] each; those that a node has not are None."""

    v: Tensor
    current: Tensor | None
    rest: Tensor | None
    again: Tensor | None


class Neurons(nn.Module):
    """A node with a potential (`engram.snn.interchange.nir.cells.Cells` has the equations).

    Its constants are buffers, one value for each neuron or one for all: no training changes them.
    """

    decay: Tensor
    gain: Tensor
    leak: Tensor
    synaptic_decay: Tensor
    synaptic_gain: Tensor
    synaptic_leak: Tensor
    threshold: Tensor
    v_reset: Tensor
    floor: Tensor
    start: Tensor
    synaptic_start: Tensor
    refractory: Tensor

    def __init__(self, cells: Cells, how: Semantics, again: bool, surrogate: Surrogate, slope: float) -> None:
        super().__init__()
        self.how, self.again, self.slope = how, again, slope
        self.surrogate: Surrogate = surrogate
        for name, value in cells.arrays().items():
            self.register_buffer(name, torch.from_numpy(value).float())
        self.register_buffer("refractory", torch.tensor(cells.refractory))
        self.names = tuple(cells.arrays())

    def scan(self, drive: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """drive: [T, B, ...] -> (what is sent, of the same shape, and what is kept after step T)."""
        memory = self._start(drive[0]) if memory is None else memory
        sent: list[Tensor] = []
        for x in drive.unbind(0):
            each, memory = self._step(x, memory)
            sent.append(each)
        return torch.stack(sent), memory

    def _start(self, x: Tensor) -> Memory:
        zeros = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
        v = zeros + self.start if "start" in self.names else zeros
        current = zeros if "synaptic_decay" in self.names else None
        if "synaptic_start" in self.names:
            current = zeros + self.synaptic_start
        return Memory(v, current, zeros if int(self.refractory) else None, zeros if self.again else None)

    def _step(self, x: Tensor, m: Memory) -> tuple[Tensor, Memory]:
        i, current = x, m.current
        if current is not None:
            current = self.synaptic_decay * current + self.synaptic_gain * x + self.synaptic_leak
            i = m.current if self.how.current == "before" and m.current is not None else current
        u = self.decay * m.v + self.gain * i + self.leak
        if "threshold" not in self.names:
            return u, m._replace(v=u, current=current)
        return self._fire(u, m._replace(current=current))

    def _fire(self, u: Tensor, m: Memory) -> tuple[Tensor, Memory]:
        theta: Tensor = self.threshold
        if m.again is not None:
            u = u - theta * m.again
        spikes, rest = self.fired(u), m.rest
        if rest is not None:
            held = rest > 0
            spikes, u = torch.where(held, 0.0, spikes), torch.where(held, m.v, u)
            rest = torch.where(spikes.detach() > 0, self.refractory.to(u.dtype), (rest - 1).clamp_min(0))
        gone = spikes.detach()
        if m.again is not None:
            v = u - theta * (gone - m.again)
            m = m._replace(again=(v.detach() > theta).to(v.dtype))
        elif self.how.reset == "soft":
            v = u - theta * gone
        else:
            v = torch.where(gone > 0, self.v_reset, u)
        return spikes, m._replace(v=torch.maximum(v, self.floor) if "floor" in self.names else v, rest=rest)

    def fired(self, u: Tensor) -> Tensor:
        """How many spikes neurons of a potential send, [B, ...], with a surrogate for the derivative."""
        theta, how = self.threshold, self.how
        unit = torch.where(theta > 0, theta, torch.ones_like(theta))
        if how.spikes == "several":
            whole = torch.floor(u / theta) if how.comparison == ">=" else torch.ceil(u / theta) - 1
            count = whole.clamp_min(0)
            nearest = theta * torch.round(u.detach() / unit).clamp_min(1)
        else:
            count = (u > theta if how.comparison == ">" else u >= theta).to(u.dtype)
            nearest = theta
        if not u.requires_grad:
            return count
        smooth = spike((u - nearest) / unit, self.surrogate, self.slope)
        return smooth + (count - smooth).detach()


class Threshold(nn.Module):
    """Ones above a threshold."""

    threshold: Tensor

    def __init__(self, threshold: np.ndarray, surrogate: Surrogate, slope: float) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.from_numpy(threshold).float())
        self.surrogate: Surrogate = surrogate
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        count = (x > self.threshold).to(x.dtype)
        smooth = spike(x - self.threshold, self.surrogate, self.slope)
        return smooth + (count - smooth).detach()


class Delay(nn.Module):
    """What came so many steps ago, for every element; zeros before."""

    steps: Tensor

    def __init__(self, steps: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("steps", torch.from_numpy(steps))

    def scan(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """x: [T, B, ...] -> (the same later, the last inputs, which come first next time)."""
        longest = int(self.steps.max())
        past = x.new_zeros(longest, *x.shape[1:]) if past is None else past
        whole = torch.cat([past, x])
        found = torch.zeros_like(x)
        for back in self.steps.unique().tolist():
            found = torch.where(self.steps == back, whole[longest - back : len(whole) - back], found)
        return found, whole[len(x) :]


class Weighted(nn.Module):
    """Affine, Linear, Conv1d and Conv2d. x: [B, ...]."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(node.arrays["weight"]).float())
        bias = node.arrays.get("bias")
        self.bias = None if bias is None else nn.Parameter(torch.from_numpy(bias).float())
        self.axes = 0
        if node.kind in ("Conv1d", "Conv2d"):
            kernel = tuple(node.arrays["weight"].shape[2:])
            self.axes, self.pads = len(kernel), _pads(borders(node, kernel))
            self.strides, self.dilations = strides(node, self.axes), dilations(node, self.axes)
            self.groups = int(node.settings["groups"])  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        if not self.axes:
            return F.linear(x, self.weight, self.bias)
        convolve = F.conv1d if self.axes == 1 else F.conv2d
        x = F.pad(x, self.pads) if any(self.pads) else x
        return convolve(x, self.weight, self.bias, self.strides, 0, self.dilations, self.groups)


class Scaled(nn.Module):
    """x times a factor for each element, or one for all."""

    def __init__(self, scale: np.ndarray) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.from_numpy(scale).float())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Pooled(nn.Module):
    """SumPool2d and AvgPool2d, whose border of zeros counts."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.kernel, self.strides = node.pair("kernel_size"), node.pair("stride")
        self.pads = _pads(borders(node, self.kernel))
        self.divisor = 1 if node.kind == "SumPool2d" else self.kernel[0] * self.kernel[1]

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.pads) if any(self.pads) else x
        return F.avg_pool2d(x, self.kernel, self.strides, divisor_override=self.divisor)


def module_of(node: Node, taken: tuple[int, ...], how: Semantics, surrogate: Surrogate, slope: float) -> nn.Module:
    """The module of a node at which ``taken`` arrives."""
    if node.kind in NEURONS:
        return Neurons(cells_of(node, how), how, how.compared_again and node.kind == "IF", surrogate, slope)
    match node.kind:
        case "Affine" | "Linear" | "Conv1d" | "Conv2d":
            return Weighted(node)
        case "Scale":
            return Scaled(node.arrays["scale"])
        case "Threshold":
            return Threshold(node.arrays["threshold"], surrogate, slope)
        case "Delay":
            return Delay(steps_of(node, how))
        case "SumPool2d" | "AvgPool2d":
            return Pooled(node)
        case "Flatten":
            first, last = flattened_axes(node, len(taken))
            return nn.Flatten(first + 1, last + 1)
        case _:
            return nn.Identity()


def _pads(found: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """As torch wants them, the last axis first."""
    return tuple(each for pair in reversed(found) for each in pair)
