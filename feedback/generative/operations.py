"""What each operation does on the way up and on the way down, with the same weights.

On the way up an operation notes what its way down has to know, and one that chooses (an activation, a maximum) may be
told what came down to it before.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engram.backbone.nets.blocks import Add, PooledConv2d
from engram.feedback.network.norms import StepNorm

Seen = tuple[Any, ...]
"""What the way down has to know: shapes, masks, places."""


class Operation(NamedTuple):
    """One kind of operation with one input.

    Attributes:
        up: of its module, its input [B, ...], what came down to its output before (None at first) and the share of that
            which is mixed in -> its output and what it has seen.
        down: of its module, what comes down to its output and what it has seen -> what goes down to its input.
    """

    up: Callable[[Any, Tensor, Tensor | None, float], tuple[Tensor, Seen]]
    down: Callable[[Any, Tensor, Seen], Tensor]


def _shape_seen(module: Any, x: Tensor, _came: Tensor | None, _share: float) -> tuple[Tensor, Seen]:
    return module(x), (x.shape,)


def transposed_conv(conv: nn.Conv2d, top: Tensor, seen: Seen) -> Tensor:
    """W' y of a convolution W without its bias. top: [B, C_out, h, w] -> [B, C_in, H, W]."""
    pooled = isinstance(conv, PooledConv2d)
    weight, stride = (conv.pooled_weight(), (2, 2)) if pooled else (conv.weight, conv.stride)
    return _spread(top, weight, stride, _pair(conv.padding), _pair(conv.dilation), conv.groups, seen[0])


def _spread(
    top: Tensor,
    weight: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    shape: torch.Size,
) -> Tensor:
    """A transposed convolution whose result has the shape of the convolution's input."""
    kernel = weight.shape[-2:]
    sizes = [(top.shape[i - 2] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + 1 for i in range(2)]
    extra = [shape[i - 2] - sizes[i] for i in range(2)]  # rows that the convolution left out at the end
    return F.conv_transpose2d(top, weight, None, stride, padding, extra, groups, dilation)


def transposed_linear(linear: nn.Linear, top: Tensor, _seen: Seen) -> Tensor:
    """W' y of a linear layer W without its bias. top: [B, K] -> [B, F]."""
    return F.linear(top, linear.weight.T)


def _transposed_average(pool: nn.AvgPool2d, top: Tensor, seen: Seen) -> Tensor:
    kernel, stride = _pair(pool.kernel_size), _pair(pool.stride)
    share = 1 / (pool.divisor_override or kernel[0] * kernel[1])
    weight = top.new_full((top.shape[1], 1, *kernel), share)
    return _spread(top, weight, stride, _pair(pool.padding), (1, 1), top.shape[1], seen[0])


def _transposed_mean(_pool: nn.AdaptiveAvgPool2d, top: Tensor, seen: Seen) -> Tensor:
    return (top / (seen[0][-1] * seen[0][-2])).expand(seen[0])


def _transposed_shape(_module: Any, top: Tensor, seen: Seen) -> Tensor:
    return top.reshape(seen[0])


def _transposed_padding(pad: nn.ZeroPad2d, top: Tensor, _seen: Seen) -> Tensor:
    return F.pad(top, [-side for side in pad.padding])


def instance_norm(value: Tensor) -> Tensor:
    """Every map divided by the root of its mean square; vectors as one map. value: [B, C, H, W] or [B, F]."""
    places = tuple(range(2, value.ndim)) or (1,)
    return value * (value.square().mean(places, keepdim=True) + 1e-8).rsqrt()


def ada_relu(_module: Any, x: Tensor, came: Tensor | None, share: float) -> tuple[Tensor, Seen]:
    """Units that agree in sign with what came down pass; before anything has come down, positive ones.

        x' = x + rho (g - x),  z = [x' g > 0] = argmax_z z x' g,  y = z x'

    x, came: [B, ...]; share: rho.
    """
    if came is None:
        chosen = x > 0
    else:
        x = x + share * (came - x)
        chosen = x * came > 0
    return x * chosen, (chosen,)


def _masked(_module: Any, top: Tensor, seen: Seen) -> Tensor:
    return top * seen[0]


def ada_pool(pool: nn.MaxPool2d, x: Tensor, came: Tensor | None, _share: float) -> tuple[Tensor, Seen]:
    """The largest value of a window where what came down is positive, the smallest where it is negative.

        t = argmax_t x_t g,  y = x_t, and 0 where g is

    x: [B, C, H, W]; came: [B, C, h, w], None before anything has come down: then the largest everywhere.
    """
    sizes = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
    largest, place = F.max_pool2d(x, *sizes, return_indices=True)
    if came is None:
        return largest, (place, x.shape, torch.ones_like(place, dtype=torch.bool))
    smallest, other = F.max_pool2d(-x, *sizes, return_indices=True)
    up = came > 0
    value = torch.where(up, largest, -smallest) * (came != 0)
    return value, (torch.where(up, place, other), x.shape, came != 0)


def _unpooled(_pool: nn.MaxPool2d, top: Tensor, seen: Seen) -> Tensor:
    place, shape, kept = seen
    flat = top.new_zeros(*shape[:2], shape[2] * shape[3])
    return flat.scatter_add(2, place.flatten(2), (top * kept).flatten(2)).reshape(shape)


def _pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _normalised(_module: Any, top: Tensor, _seen: Seen) -> Tensor:
    return instance_norm(top)


_RELU = Operation(ada_relu, _masked)
_NORM = Operation(_shape_seen, _normalised)
_FLATTEN = Operation(lambda _module, x, _came, _share: (x.flatten(1), (x.shape,)), _transposed_shape)
_SAME = Operation(lambda _module, x, _came, _share: (x, ()), lambda _module, top, _seen: top)
_MODULES: Mapping[type[nn.Module], Operation] = {
    nn.Conv2d: Operation(_shape_seen, transposed_conv),
    PooledConv2d: Operation(_shape_seen, transposed_conv),
    nn.Linear: Operation(_shape_seen, transposed_linear),
    nn.AvgPool2d: Operation(_shape_seen, _transposed_average),
    nn.AdaptiveAvgPool2d: Operation(_shape_seen, _transposed_mean),
    nn.ZeroPad2d: Operation(_shape_seen, _transposed_padding),
    nn.MaxPool2d: Operation(ada_pool, _unpooled),
    nn.ReLU: _RELU,
    nn.Flatten: _FLATTEN,
    nn.Identity: _SAME,
}
_FUNCTIONS: Mapping[Any, Operation] = {torch.relu: _RELU, F.relu: _RELU, torch.flatten: _FLATTEN}
_SUMS = (operator.add, torch.add)


def is_sum(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node adds two values: what comes down goes to both."""
    plain = len(node.args) == 2 and not node.kwargs and all(isinstance(each, fx.Node) for each in node.args)
    return plain and (isinstance(module, Add) or node.target in _SUMS)


def operation(node: fx.Node, module: nn.Module | None) -> Operation | None:
    """What a node with one input is; None for what cannot be transposed."""
    if len(node.all_input_nodes) != 1:
        return None
    if module is None:
        plain = not node.kwargs and node.args[1:] in ((), (1,))
        return _FUNCTIONS.get(node.target) if plain else None
    if isinstance(module, StepNorm | _BatchNorm | nn.GroupNorm | nn.LayerNorm):
        return _NORM
    return _MODULES.get(type(module)) if _plain(module) else None


def _plain(module: nn.Module) -> bool:
    """Whether a module of a known type is used in the way that is known."""
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if isinstance(module, nn.AvgPool2d):
        padded = any(_pair(module.padding)) and not module.count_include_pad
        return not (module.ceil_mode or padded)
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return module.output_size in (1, (1, 1))
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    return not isinstance(module, nn.ZeroPad2d) or min(module.padding) >= 0
