"""What linear operations do to counts of paths: how many weights a value reaches, how many values a place adds up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from engram.backbone.contract import Composed
from engram.snn.graph.operations import BATCHNORMS, IDLE, function_name, is_idle

Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
Load = Callable[[fx.Node], Any]
"""Gives a node's value: counts of paths where images have a part in it, else what it is."""

_LAYER_CALLS = (F.conv1d, F.conv2d, F.conv3d, F.linear)
_PRODUCTS = frozenset({"matmul", "mm", "bmm", "einsum"})
_SUMS = frozenset({"add", "iadd", "add_", "sub", "isub", "sub_"})
_SAME = frozenset({"contiguous", "clone", "to", "float", "neg"})
_SCALINGS = frozenset({"mul", "imul", "mul_", "div", "truediv", "itruediv", "div_"})
_POOLS = frozenset({"mean", "avg_pool2d", "adaptive_avg_pool2d"})
# They move values about: what they do to values they do to counts.
_MOVES = frozenset(
    {"flatten", "unflatten", "permute", "transpose", "squeeze", "unsqueeze", "chunk", "split", "unbind", "getitem"}
)
_JOINS = frozenset({"cat", "concat", "stack"})
_RESHAPES = frozenset({"view", "reshape"})
_MOVING = (nn.Flatten, nn.Unflatten, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)


def reached(layer: Layer, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """How many paths lead through the weights of a layer to each of its outputs, in every padding mode.

    Args:
        layer: a weight that is used at several places is one at each of them.
        x: as the layer takes it, float64, how many paths lead to each of its inputs.
        weight: 1 for a weight that counts, 0 for one that does not; by default its `pattern`.
    """
    weight = pattern(layer.weight) if weight is None else weight
    return F.linear(x, weight) if isinstance(layer, nn.Linear) else layer._conv_forward(x, weight, None)


def plain(module: nn.Module) -> nn.Module:
    """The layer that a composed one is (`engram.backbone.nets.folding.bake`), or the module itself."""
    return module.baked() if isinstance(module, Composed) else module


def pattern(weight: Tensor) -> Tensor:
    """1 where a weight is not zero, 0 elsewhere; float64."""
    return (weight.detach() != 0).double()


def weights_of(n: fx.Node, module: nn.Module | None, source: fx.Node, load: Load) -> Callable[[Tensor], Tensor] | None:
    """For a layer, module or function: counts of its inputs -> how many paths end in its weights, by output; else None.

    A layer that scales every channel by itself (BatchNorm that was not folded) does not count: see `added`.

    Args:
        n: a node to which images come by ``source`` alone.
        module: what it calls.
    """
    if module is not None:
        layer = plain(module)
        return (lambda x: reached(layer, x)) if isinstance(layer, Layer) and _scale(layer) is None else None
    biased = n.target in _LAYER_CALLS
    if not biased and function_name(n) not in _PRODUCTS:
        return None
    run: Any = getattr(torch, str(n.target)) if n.op == "call_method" else n.target
    args = tuple(None if biased and place == 2 else arg for place, arg in enumerate(n.args))
    kwargs = {name: None if name == "bias" else value for name, value in n.kwargs.items()}

    def reach(x: Tensor) -> Tensor:
        def count(node: fx.Node) -> Any:
            value = x if node is source else load(node)
            return pattern(value) if node is not source and isinstance(value, Tensor) else value

        return run(*map_arg(args, count), **map_arg(kwargs, count))

    return reach


def moved(
    n: fx.Node, module: nn.Module | None, sources: list[fx.Node], shape: torch.Size | None, load: Load
) -> Any | None:
    """Counts behind a node that moves values about, joins or scales them, each by itself; None for any other node.

    A scaled path is one path, and none where the factor is zero.

    Args:
        sources: those inputs of ``n`` in which images have a part.
        shape: of what it gives, if that is a tensor.
    """
    name, x = function_name(n), load(sources[0])
    if not isinstance(x, Tensor) and name != "getitem":
        return None
    if module is not None:
        return x if isinstance(module, IDLE) else module(x) if isinstance(module, _MOVING) else None
    if name in _JOINS or (name in _MOVES and x is not None):
        return _run(n, load)
    if len(sources) > 1 or shape is None:
        return None
    if name in _SAME or is_idle(n, {}):
        return x
    if name in _SCALINGS:
        return _scaled(n, sources[0], shape, load)
    return x.reshape(shape) if name in _RESHAPES and x is not None else None


def added(
    n: fx.Node, module: nn.Module | None, sources: list[fx.Node], shape: torch.Size | None, load: Load
) -> Tensor | None:
    """As `moved`, for a node that adds values to each other, averages them, or shifts them.

    What shifts them is no value of an image (a bias, a normalisation) and changes no count.
    """
    name, x = function_name(n), load(sources[0])
    if isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return _summed(module, x, (x,), {})
    if module is not None:
        scale = _scale(module)
        return None if scale is None else x * scale.view(-1, *[1] * (x.ndim - 2))
    if name in _SUMS and shape is not None:
        return torch.stack([load(source).expand(shape) for source in sources]).sum(0)
    if name == "sum":
        return _run(n, load)
    return _summed(n.target, x, *map_arg((n.args, n.kwargs), load)) if name in _POOLS else None  # type: ignore[misc]


def is_addition(n: fx.Node, sources: list[fx.Node]) -> bool:
    """Whether a node adds values of images to each other."""
    return len(sources) > 1 and function_name(n) in _SUMS


def _run(n: fx.Node, load: Load) -> Any:
    args, kwargs = map_arg((n.args, n.kwargs), load)  # type: ignore[misc]
    if n.op == "call_method":
        return getattr(args[0], str(n.target))(*args[1:], **kwargs)
    return n.target(*args, **kwargs)  # type: ignore[operator]


def _scale(module: nn.Module) -> Tensor | None:
    """[C] pattern of the factors of a module that scales every channel by itself; None for any other."""
    if isinstance(module, BATCHNORMS) and module.running_mean is not None:
        return torch.ones_like(module.running_mean).double() if module.weight is None else pattern(module.weight)
    if isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels > 1:
        alone = module.kernel_size == (1, 1) == module.stride and module.padding in ((0, 0), "valid", "same")
        return pattern(module.weight).flatten() if alone else None
    if isinstance(module, nn.Linear) and module.in_features == module.out_features > 1:
        weights = pattern(module.weight)
        return weights.diag() if torch.equal(weights, weights.diag().diag()) else None
    return None


def _scaled(n: fx.Node, source: fx.Node, shape: torch.Size, load: Load) -> Tensor | None:
    left, right, *_ = (*n.args, *n.kwargs.values())
    if left is right or n.kwargs.get("rounding_mode") or ("mul" not in function_name(n) and left is not source):
        return None
    other = load(value) if isinstance(value := right if left is source else left, fx.Node) else value
    factor = pattern(other) if isinstance(other, Tensor) else float(other != 0)
    return (load(source) * factor).expand(shape)


def _summed(target: Any, x: Tensor, args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
    """A pooling operation of x with its averages turned into sums, so that each of its inputs counts as one path."""
    if isinstance(target, nn.AvgPool2d):
        return F.avg_pool2d(x, target.kernel_size, target.stride, target.padding, target.ceil_mode, divisor_override=1)
    if target is F.avg_pool2d:
        return F.avg_pool2d(*args[:6], **{**kwargs, "divisor_override": 1})
    out: Any = target(*args, **kwargs) if callable(target) else args[0].mean(*args[1:], **kwargs)
    if isinstance(target, nn.AdaptiveAvgPool2d) or target is F.adaptive_avg_pool2d:
        rows, columns = (_bins(x.shape[d], out.shape[d], x) for d in (-2, -1))
        return out * rows[:, None] * columns
    return out * (x.numel() // out.numel())


def _bins(size: int, out: int, like: Tensor) -> Tensor:
    """[out]: how many of ``size`` inputs adaptive pooling averages for each output (they overlap when uneven)."""
    lengths = [-(-(i + 1) * size // out) - i * size // out for i in range(out)]
    return torch.tensor(lengths, dtype=like.dtype, device=like.device)
