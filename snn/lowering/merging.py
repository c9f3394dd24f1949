"""The affine layers between two populations as one: a convolution or a matrix, and a bias for each neuron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.errors import must
from engram.backbone.nets.plain import copied
from engram.snn.lowering.network import Connection

Shape = tuple[int, ...]
Pair = tuple[int, int]

LARGEST = 2**24
"""Weights that a matrix may have which stands for layers that are no convolution."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """One affine layer, in float64: what a connection's layers compute, borders included.

    Attributes:
        kind: ``dense``: weight [out, in] over both sides flattened in the order C, H, W; ``conv``: weight
            [O, I / groups, kH, kW] as torch's `conv2d` applies it.
        bias: [1] where it is zero, [C] where it is the same all over a channel, else one for each neuron, [*out_shape].
        in_shape, out_shape: (C, H, W) or (N,).
        stride, padding, dilation: (y, x).
    """

    kind: Literal["dense", "conv"]
    weight: Tensor
    bias: Tensor
    in_shape: Shape
    out_shape: Shape
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def apply(self, x: Tensor) -> Tensor:
        """x: [B, *in_shape] -> [B, *out_shape] without the bias, in the type of x."""
        weight = self.weight.to(x.dtype)
        if self.kind == "dense":
            return F.linear(x.flatten(1), weight).unflatten(1, self.out_shape)
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def biases(self) -> Tensor:
        """The bias, broadcastable to [*out_shape]."""
        one_a_channel = self.bias.ndim == 1 and len(self.out_shape) == 3
        return self.bias.view(-1, 1, 1) if one_a_channel else self.bias


@dataclass(frozen=True)
class _Conv:
    """A convolution with zeros around the picture, without a bias."""

    weight: Tensor
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def reach(self, axis: int) -> int:
        """How many places a kernel spans along an axis."""
        return self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1

    def size(self, before: int, axis: int) -> int:
        """The size behind it, for one of ``before`` in front."""
        return (before + 2 * self.padding[axis] - self.reach(axis)) // self.stride[axis] + 1


@torch.no_grad()
def merged(connection: Connection, in_shape: Shape) -> Merged:
    """The one layer that a connection's layers are: exact, borders included.

    Pools and convolutions become one convolution (k' = s (k - 1) + p for a k x k kernel behind windows of p x p at
    stride s). Where a border, a mode of padding or a layer is none that a convolution knows it is a matrix, if that has
    at most `LARGEST` weights.

    Args:
        connection: see `Connection`.
        in_shape: (C, H, W) or (N,) of its source.

    Raises:
        UserError: it is no convolution, and would be too large a matrix.
    """
    layers = copied(connection.layers).double().eval()
    nothing = torch.zeros(1, *in_shape, dtype=torch.float64, device=_device(layers))
    bias = layers(nothing)[0]
    out_shape = tuple(bias.shape)
    described = {"bias": _smallest(bias), "in_shape": in_shape, "out_shape": out_shape}
    conv = _convolution(layers, in_shape, out_shape)
    if conv is not None:
        spaces = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
        return Merged(kind="conv", weight=conv.weight, **described, **spaces)
    weights = math.prod(in_shape) * math.prod(out_shape)
    if weights > LARGEST:
        raise must(
            f"the layers from {connection.source} ({', '.join(type(each).__name__ for each in layers)})",
            f"one convolution, or a matrix of at most {LARGEST:,} weights",
            f"{weights:,} weights",
            "Let pools divide their pictures without a rest, and pad with zeros.",
        )
    return Merged(kind="dense", weight=_matrix(layers, nothing, bias), **described)


def _device(layers: nn.Module) -> torch.device:
    return next((each.device for each in layers.parameters()), torch.device("cpu"))


def _smallest(bias: Tensor) -> Tensor:
    """bias: [*shape] -> [1] or [C] where that says the same."""
    if not bool(bias.any()):
        return bias.new_zeros(1)
    rows = bias.flatten(1) if bias.ndim == 3 else bias[:, None]
    return rows[:, 0].clone() if bool((rows == rows[:, :1]).all()) else bias.clone()


@torch.enable_grad()
def _matrix(layers: nn.Sequential, nothing: Tensor, bias: Tensor) -> Tensor:
    """[out, in]: the rows of the matrix are what each output takes from the inputs."""
    rows = bias.numel()
    x = nothing.expand(rows, *nothing.shape[1:]).clone().requires_grad_()
    each = torch.eye(rows, dtype=bias.dtype, device=bias.device).view(rows, *bias.shape)
    (found,) = torch.autograd.grad(layers(x), x, each)
    return found.flatten(1)


def _convolution(layers: nn.Sequential, in_shape: Shape, out_shape: Shape) -> _Conv | None:
    """All layers as one convolution; None where they are none."""
    if len(in_shape) != 3 or len(out_shape) != 3:
        return None
    channels = in_shape[0]
    whole = _each_channel(torch.ones(1, 1, dtype=torch.float64, device=_device(layers)), channels)
    if len(layers) == 0:
        return whole
    found: _Conv | None = None
    sizes = in_shape[1:]
    for layer in layers:
        conv = _as_conv(layer, channels)
        if conv is None:
            return None
        found = conv if found is None else _composed(found, conv, sizes)
        if found is None:
            return None
        channels = len(conv.weight)
    return found


def _each_channel(window: Tensor, channels: int, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> _Conv:
    """One kernel [kH, kW] on every channel by itself."""
    return _Conv(window.expand(channels, 1, *window.shape).clone(), stride, padding, (1, 1), channels)


def _as_conv(layer: nn.Module, channels: int) -> _Conv | None:
    if isinstance(layer, nn.AvgPool2d):
        kernel, padding = _pair(layer.kernel_size), _pair(layer.padding)
        if layer.ceil_mode or (any(padding) and not layer.count_include_pad and layer.divisor_override is None):
            return None
        share = 1 / (layer.divisor_override or math.prod(kernel))
        window = torch.full(kernel, share, dtype=torch.float64)
        return _each_channel(window, channels, _pair(layer.stride), padding)
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    weight = layer.weight.detach()
    return _Conv(weight, _pair(layer.stride), _pair(layer.padding), _pair(layer.dilation), layer.groups)


def _pair(value: int | Sequence[int]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _composed(first: _Conv, second: _Conv, sizes: Sequence[int]) -> _Conv | None:
    """Both as one: y[p] = sum_q B[q] sum_t A[t] x[(p s_B + d_B q - p_B) s_A + d_A t - p_A]; None where the zeros around
    what leaves the first are not what the first makes of the zeros around the picture.

    Args:
        sizes: (H, W) of the picture.
    """
    if not all(_padding_agrees(first, second, sizes[axis], axis) for axis in (0, 1)):
        return None
    steps = [first.stride[axis] * second.dilation[axis] for axis in (0, 1)]
    if first.dilation != (1, 1) and first.weight.shape[2:] != (1, 1):
        first = replace(first, weight=_spread(first.weight, first.dilation), dilation=(1, 1))
    groups = math.gcd(first.groups, second.groups)
    behind = _with_groups(second, groups)
    parts = [
        F.conv_transpose2d(after, before, stride=tuple(steps), groups=first.groups // groups)
        for after, before in zip(behind.chunk(groups), first.weight.chunk(groups), strict=True)
    ]
    return _Conv(
        weight=torch.cat(parts),
        stride=(first.stride[0] * second.stride[0], first.stride[1] * second.stride[1]),
        padding=(
            first.padding[0] + first.stride[0] * second.padding[0],
            first.padding[1] + first.stride[1] * second.padding[1],
        ),
        dilation=(1, 1),
        groups=groups,
    )


def _padding_agrees(first: _Conv, second: _Conv, size: int, axis: int) -> bool:
    padding, stride = second.padding[axis], first.stride[axis]
    if padding == 0:
        return True
    between = first.size(size, axis)
    last = (second.size(between, axis) - 1) * second.stride[axis] - padding + second.reach(axis) - 1
    before = first.reach(axis) <= stride + first.padding[axis]
    return before and (last < between or between * stride - first.padding[axis] >= size)


def _spread(weight: Tensor, dilation: Pair) -> Tensor:
    """A dilated kernel with its holes written as zeros."""
    rows, columns = ((n - 1) * d + 1 for n, d in zip(weight.shape[2:], dilation, strict=True))
    whole = weight.new_zeros(*weight.shape[:2], rows, columns)
    whole[:, :, :: dilation[0], :: dilation[1]] = weight
    return whole


def _with_groups(conv: _Conv, groups: int) -> Tensor:
    """The weights of a convolution with fewer groups, [O, M / groups, kH, kW]: zeros between the finer ones."""
    if conv.groups == groups:
        return conv.weight
    finer, (out, width) = conv.groups // groups, conv.weight.shape[:2]
    whole = conv.weight.new_zeros(groups, finer, out // conv.groups, finer, width, *conv.weight.shape[2:])
    each = conv.weight.view(groups, finer, out // conv.groups, width, *conv.weight.shape[2:])
    for place in range(finer):
        whole[:, place, :, place] = each[:, place]
    return whole.reshape(out, finer * width, *conv.weight.shape[2:])
