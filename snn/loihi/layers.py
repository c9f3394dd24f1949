"""Synapses as layers of floats that sum whole numbers exactly, over windows first where the weights repeat.

Merging an average pool into the layer behind it repeats every weight over the pool's window: a sum pool and a smaller
layer behind it give the same sums for less work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.snn.loihi.network import Synapses
from engram.snn.simulation.crossover import pays
from engram.snn.simulation.events import Spikes, convolved

CONTIGUOUS = torch.contiguous_format

LARGEST = 8
"""Side of the largest window looked for."""


@dataclass(frozen=True)
class Layer:
    """What synapses do: sums over windows, then a convolution or a matrix.

    Attributes:
        pool: side of the windows that are summed; 1 for none.
        weight: whole numbers, [O, I / groups, kH, kW] of a convolution, [O, C, H, W] of a matrix behind a picture,
            [O, I] of any other matrix.
        conv: whether it is a convolution.
    """

    pool: int
    weight: Tensor
    conv: bool = False
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def through(self, messages: Tensor, exact: torch.dtype) -> Tensor:
        """messages: [N, *shape] whole numbers -> [N, O, ...] in floats."""
        if messages.ndim == 4:
            x = messages.to(exact, memory_format=torch.channels_last)
            x = F.avg_pool2d(x, self.pool, divisor_override=1) if self.pool > 1 else x
        else:
            x = messages.to(exact)
        return self.summed(x, self._single if exact == torch.float32 else self._arranged.to(exact))

    def followed(self, spikes: Spikes) -> Tensor:
        """The same of spikes, in float32: following them where that pays."""
        spikes = replace(spikes, pool=self.pool)
        if self.pool & (self.pool - 1):  # averages by other numbers are not exact
            return self.through(spikes.channels_first().flatten(0, 1), torch.float32)
        if self.following is not None and pays(spikes, self.following):
            return convolved(spikes, self.following)
        return self.summed(spikes.dense(), self._of_averages)

    def summed(self, x: Tensor, weight: Tensor) -> Tensor:
        """x: [N, ...] behind the pool, in floats -> [N, O, ...]; weight: `_arranged`."""
        if self.conv:
            return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)
        return F.linear(x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x, weight)

    @cached_property
    def following(self) -> nn.Conv2d | nn.Linear | None:
        """A layer that can follow spikes, on averages over windows; a matrix behind a picture is a convolution too."""
        if self.groups > 1 or self.dilation != (1, 1):
            return None
        weight = self.weight.float() * self.pool**2
        if weight.ndim == 2:
            made: nn.Conv2d | nn.Linear = nn.Linear(weight.shape[1], len(weight), bias=False, device="meta")
        else:
            filters, channels, *kernel = weight.shape
            made = nn.Conv2d(channels, filters, kernel, self.stride, self.padding, bias=False, device="meta")  # type: ignore[arg-type]
        made.weight = nn.Parameter(weight, requires_grad=False)
        return made

    @property
    def _arranged(self) -> Tensor:
        """The weights as `summed` takes them: of a matrix behind a picture the channels of a pixel side by side."""
        if self.conv or self.weight.ndim == 2:
            return self.weight
        return self.weight.permute(0, 2, 3, 1).flatten(1)

    @cached_property
    def _single(self) -> Tensor:
        return self._arranged.float().contiguous(memory_format=torch.channels_last if self.conv else CONTIGUOUS)

    @cached_property
    def _of_averages(self) -> Tensor:
        return self._single * self.pool**2


def layer(synapses: Synapses, weight: Tensor) -> Layer:
    """Synapses with these weights, with the largest pool that can stand in front of them."""
    if synapses.kind == "dense":
        weight = weight.unflatten(1, synapses.in_shape)
        pool = _pool(weight, *synapses.in_shape[1:]) if len(synapses.in_shape) == 3 else 1
        return Layer(pool, _first(weight, pool))
    spaces = (*synapses.stride, *synapses.padding)
    pool = 1 if synapses.dilation != (1, 1) else _pool(weight, *weight.shape[2:], *spaces, *synapses.in_shape[1:])
    (down, right), (top, left) = synapses.stride, synapses.padding
    return Layer(
        pool,
        _first(weight, pool),
        True,
        (down // pool, right // pool),
        (top // pool, left // pool),
        synapses.dilation,
        synapses.groups,
    )


def _pool(weight: Tensor, *sizes: int) -> int:
    """The largest window that divides all sizes and over which the weights [O, I, kH, kW] repeat."""
    for pool in range(LARGEST, 1, -1):
        if any(size % pool for size in sizes):
            continue
        once = _first(weight, pool)
        if bool((once.repeat_interleave(pool, 2).repeat_interleave(pool, 3) == weight).all()):
            return pool
    return 1


def _first(weight: Tensor, pool: int) -> Tensor:
    return weight[:, :, ::pool, ::pool].contiguous() if pool > 1 else weight
