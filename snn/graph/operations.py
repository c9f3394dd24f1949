"""What every operation of a traced network is to a spiking one: neurons, linear, pooling, or a reason against it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from engram.backbone.nets.shapes import SEVERAL
from engram.snn.graph.activations import QUANTISED, RELU, activation
from engram.snn.graph.calls import MIXES, call_problem, dimensions
from engram.snn.graph.sizes import is_size

Modules = Mapping[str, nn.Module]

IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
MAX_POOLS = (nn.MaxPool2d, nn.AdaptiveMaxPool2d)

_LINEAR = (nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Unflatten, nn.ZeroPad2d)
_INPUT_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.LocalResponseNorm)
_VIEWS = (torch.flatten, torch.reshape, operator.getitem, "flatten", "view", "reshape", "contiguous")
_POOL_ARGUMENTS = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")

_ATTENTION = "attention multiplies activations with each other; use a convolutional network (--backbone vgg-small)"
_INPUT_NORM = "it rescales by statistics of the very input; use BatchNorm (--backbone.normalisation batch)"
_BATCH_STATISTICS = "it has no statistics of its own and uses those of the batch; set track_running_stats=True"
_OTHER_ACTIVATION = "integrate-and-fire neurons compute a ReLU only (--backbone.activation relu)"
_OTHER_MAXIMUM = "only nn.MaxPool2d and nn.AdaptiveMaxPool2d without indices run along time; use one of them"
OVERWRITES = "it overwrites a value that is used elsewhere in another shape; use nn.ReLU(inplace=False)"
DROPS_BATCH = "it drops the batch of a single image as well; use flatten(1), or name the dimensions behind the first"
_SEQUENCES = (
    "it normalises [B, C, L], which no layer takes up; use nn.BatchNorm2d on [B, C, H, W], before it is flattened"
)
_UNKNOWN = "not known to be linear; build it from Conv2d, Linear, AvgPool2d, Flatten, ReLU and addition"

# Functions and methods by name, for the sake of a reason; whatever is not known is refused all the same.
_REASONS: Mapping[str, str] = {
    **dict.fromkeys(("max_pool1d", "max_pool2d_with_indices", "adaptive_max_pool1d"), _OTHER_MAXIMUM),
    **dict.fromkeys(("max_pool2d", "amax", "max", "maximum"), _OTHER_MAXIMUM),
    **dict.fromkeys(("scaled_dot_product_attention", "softmax", "matmul", "bmm", "einsum"), _ATTENTION),
    **dict.fromkeys(("batch_norm",), "a functional BatchNorm cannot be folded; use an nn.BatchNorm2d module"),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm"), _INPUT_NORM),
    **dict.fromkeys(("conv2d", "linear"), "its weights are passed by hand; use an nn.Conv2d or nn.Linear module"),
    **dict.fromkeys(("squeeze",), DROPS_BATCH),
    **dict.fromkeys(("dropout",), "functional dropout that stays on in evaluation; use an nn.Dropout module"),
}


def module_of(node: fx.Node, modules: Modules) -> nn.Module | None:
    """The module a node calls."""
    return modules[str(node.target)] if node.op == "call_module" else None


def function_name(node: fx.Node) -> str:
    target: str | Callable[..., object] = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def place(node: fx.Node) -> str:
    """The module in whose code a function is called (``body.1.0.add``), or the node's own name."""
    stack = list(node.meta.get("nn_module_stack") or ())
    return stack[-1] if stack and stack[-1] else node.name


def is_idle(node: fx.Node, modules: Modules) -> bool:
    """Whether a node does nothing in evaluation mode."""
    if node.target is F.dropout:
        training = node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True)
        return training is False
    return isinstance(module_of(node, modules), IDLE)


def is_activation(node: fx.Node, modules: Modules) -> bool:
    """Whether integrate-and-fire neurons compute what a node does."""
    return activation(node, modules) in (RELU, QUANTISED)


def max_pool(node: fx.Node, modules: Modules) -> nn.MaxPool2d | nn.AdaptiveMaxPool2d | None:
    """The max pool that a node calls, module or function, as a module; None where none can run over time."""
    module = module_of(node, modules)
    if module is None:
        module = _pool_of_call(node)
    return module if isinstance(module, MAX_POOLS) and not module.return_indices else None


def _pool_of_call(node: fx.Node) -> nn.Module | None:
    arguments: tuple[Any, ...] = node.args[1:]
    kwargs: dict[str, Any] = {name: value for name, value in node.kwargs.items() if name != "input"}
    if any(isinstance(value, fx.Node) for value in (*arguments, *kwargs.values())):
        return None
    if node.target in (F.max_pool2d, torch.max_pool2d):
        return nn.MaxPool2d(**dict(zip(_POOL_ARGUMENTS, arguments, strict=False)), **kwargs)
    if node.target is F.adaptive_max_pool2d:
        return nn.AdaptiveMaxPool2d(*arguments, **kwargs)
    return None


def problem(node: fx.Node, modules: Modules) -> str:
    """Why a node cannot be part of a spiking network, with the remedy; empty where it can.

    Where shapes were noted (`engram.backbone.nets.shapes.note_shapes`), that takes them into account.
    """
    reason = MIXES if _mixes_images(node) else _problem(node, modules)
    if "error" in node.meta:
        fails = f"it fails on a batch of {SEVERAL} images ({node.meta['error']}); write it for batches of any size"
        return reason or fails
    return reason


def _problem(node: fx.Node, modules: Modules) -> str:
    module = module_of(node, modules)
    if is_activation(node, modules):
        return OVERWRITES if _overwrites_views(node, modules) else ""
    if max_pool(node, modules) is not None or is_idle(node, modules):
        return ""
    if activation(node, modules):
        return _OTHER_ACTIVATION
    if module is not None:
        return _module_problem(module, node)
    if node.op not in ("call_function", "call_method") or is_size(node):
        return ""
    found = call_problem(node)
    return _REASONS.get(function_name(node), _UNKNOWN) if found is None else found


def _mixes_images(node: fx.Node) -> bool:
    """Whether a value is the first on its way that has lost the batch, dimension 0."""
    shape = node.meta.get("shape")
    before = (source.meta["shape"] for source in node.all_input_nodes if "shape" in source.meta)
    return shape is not None and shape[:1] != (SEVERAL,) and all(other[:1] == (SEVERAL,) for other in before)


def _module_problem(module: nn.Module, node: fx.Node) -> str:
    if isinstance(module, BATCHNORMS):
        dims = len(node.meta.get("shape", ()))
        if isinstance(module, nn.BatchNorm1d) and dims == 3:
            return _SEQUENCES
        return "" if module.running_mean is not None else _BATCH_STATISTICS
    if isinstance(module, nn.Flatten) and 0 in dimensions(module.start_dim, node):
        return MIXES
    if isinstance(module, _LINEAR):
        return ""
    if isinstance(module, nn.MaxPool1d | nn.AdaptiveMaxPool1d | nn.MaxPool2d | nn.AdaptiveMaxPool2d):
        return _OTHER_MAXIMUM
    if isinstance(module, _INPUT_NORMS):
        return _INPUT_NORM
    if isinstance(module, nn.MultiheadAttention | nn.Softmax | nn.TransformerEncoderLayer):
        return _ATTENTION
    return _UNKNOWN


def in_place(node: fx.Node, modules: Modules) -> bool:
    """Whether an activation overwrites its input."""
    module = module_of(node, modules)
    if module is not None:
        return bool(getattr(module, "inplace", False))
    if node.kwargs.get("inplace") is True or any(value is True for value in node.args[1:]):
        return True
    return function_name(node).endswith("_")


def _overwrites_views(node: fx.Node, modules: Modules) -> bool:
    """Whether an activation overwrites memory that is used elsewhere under another shape."""
    source = node.all_input_nodes[0]
    if not in_place(node, modules) or len(source.users) == 1:
        return False
    return any(_is_view(other, modules) for other in (source, *source.users))


def _is_view(node: fx.Node, modules: Modules) -> bool:
    return node.target in _VIEWS or isinstance(module_of(node, modules), nn.Flatten | nn.Unflatten)
