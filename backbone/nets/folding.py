"""Tracing a backbone to a graph, baking composed layers, folding BatchNorm: none of them changes the function."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

_FOLDABLE = (nn.Conv2d, nn.Linear)
_BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class _Images(fx.Proxy):
    """What stands for the images while a network is traced: four dimensions, so that code may ask."""

    ndim = 4

    def dim(self) -> int:
        return 4


class FeatureTracer(fx.Tracer):
    """Traces ``features`` of images [B, C, H, W], the part of a backbone without control flow.

    A module whose ``leaf`` is true is one node of the graph, as torch's own layers are. With ``composed`` so is every
    layer that knows a plain form (``baked()``): its parameters stay the ones that are trained.

    Args:
        composed: keep composed layers whole.
    """

    traced_func_name = "features"

    def __init__(self, composed: bool = False) -> None:
        super().__init__()
        self.composed = composed

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = getattr(m, "leaf", False) or (self.composed and hasattr(m, "baked"))
        return bool(whole) or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Images(node, self) if node.op == "placeholder" else super().proxy(node)


class StageTracer(FeatureTracer):
    """Traces ``stages``; what it shares with ``features`` has the same names there."""

    traced_func_name = "stages"


def bake(module: nn.Module) -> nn.Module:
    """A copy in which every layer that knows its plain form (``baked()``) is replaced by it."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if hasattr(child, "baked"):
                setattr(parent, name, child.baked())  # type: ignore[operator]
    return module


def trace(backbone: nn.Module, composed: bool = False) -> fx.GraphModule:
    """The graph of ``backbone.features`` on a copy in evaluation mode, baked unless ``composed`` layers are kept.

    Raises whatever torch.fx raises when the code depends on the values of tensors.
    """
    copied = (copy.deepcopy(backbone) if composed else bake(backbone)).eval()
    graph = FeatureTracer(composed).trace(copied)
    for node in graph.nodes:
        if node.op == "call_method" and node.target == "view" and not isinstance(node.args[-1], torch.dtype):
            node.target = "reshape"  # the same values, whatever layout the memory has
    return fx.GraphModule(copied, graph)


def stage_names(backbone: nn.Module, composed: bool = False) -> list[str]:
    """Names of the nodes whose values ``backbone.stages`` returns, as they are in the graph of `trace`."""
    copied = (copy.deepcopy(backbone) if composed else bake(backbone)).eval()
    graph = StageTracer(composed).trace(copied)
    (output,) = (node for node in graph.nodes if node.op == "output")
    stages = output.args[0]
    return [node.name for node in stages if isinstance(node, fx.Node)] if isinstance(stages, list | tuple) else []


def fold_batchnorm(graph: fx.GraphModule) -> fx.GraphModule:
    """Fold every BatchNorm into the convolution or linear layer before it, where that is exact; the rest stay.

    Exact are a BatchNorm whose only input is a layer with no other consumer, directly or through average pooling
    (linear, and a constant stays a constant) that neither counts padding nor sets its own divisor. Works on a copy,
    in evaluation mode:
    ``W' = W * s, b' = (b - mu) * s + beta`` with ``s = gamma / sqrt(var + eps)`` per output channel.

    Source: Ioffe and Szegedy 2015, algorithm 2 (inference form).
    """
    graph = copy.deepcopy(graph).eval()
    modules: dict[str, nn.Module] = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, _BATCHNORMS) or norm.running_mean is None:
            continue
        layer_node = _source_layer(node, modules)
        if layer_node is None:
            continue
        _fold_into(modules[str(layer_node.target)], norm)
        node.replace_all_uses_with(node.all_input_nodes[0])
        graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def _source_layer(norm: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The layer a BatchNorm can be folded into, or None."""
    node = norm.args[0]
    while isinstance(node, fx.Node) and node.op == "call_module" and len(node.users) == 1:
        module = modules[str(node.target)]
        if isinstance(module, _FOLDABLE):
            shared = sum(n.op == "call_module" and n.target == node.target for n in norm.graph.nodes) > 1
            return None if shared else node
        if not isinstance(module, nn.AvgPool2d) or _changes_constants(module):
            return None
        node = node.args[0]
    return None


def _changes_constants(pool: nn.AvgPool2d) -> bool:
    padding = pool.padding if isinstance(pool.padding, tuple) else (pool.padding,)
    return (any(padding) and pool.count_include_pad) or pool.divisor_override is not None


@torch.no_grad()
def _fold_into(layer: nn.Module, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None and var is not None  # the caller skips norms without statistics
    weight: Tensor = layer.weight  # type: ignore[assignment]
    scale = (var + norm.eps).rsqrt()
    scale = scale * norm.weight if norm.weight is not None else scale
    bias = layer.bias if isinstance(layer.bias, Tensor) else torch.zeros_like(scale)
    shift = norm.bias if norm.bias is not None else torch.zeros_like(scale)
    layer.weight = nn.Parameter(weight * scale.view(-1, *[1] * (weight.ndim - 1)), requires_grad=False)
    layer.bias = nn.Parameter((bias - mean) * scale + shift, requires_grad=False)
