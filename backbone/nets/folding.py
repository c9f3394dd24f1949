"""Tracing a backbone to a graph, baking composed layers, folding BatchNorm: none of them changes the function."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError

from engram.backbone.contract import Composed, StageMeans, Traceable, Whole
from engram.backbone.nets.plain import copied, make_plain

_FOLDABLE = (nn.Conv2d, nn.Linear)
_BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class Untraceable(Exception):
    """A network cannot be traced: why, where in its code, and what to do about it."""


class _Images(fx.Proxy):
    """What stands for the images while a network is traced: four dimensions, so that code may ask."""

    ndim = 4

    def dim(self) -> int:
        return 4


class FeatureTracer(fx.Tracer):
    """Traces ``features`` of images [B, C, H, W], the part of a backbone without control flow.

    A network without ``features(x)`` is traced from its ``forward(x)``. A module whose ``leaf`` is true is one node of
    the graph, as torch's own layers are. With ``composed`` so is every layer that knows a plain form (``baked()``): its
    parameters stay the ones that are trained.

    Args:
        net: what will be traced.
        composed: keep composed layers whole.
    """

    def __init__(self, net: nn.Module, composed: bool = False) -> None:
        super().__init__()
        self.composed = composed
        self.traced_func_name = "features" if issubclass(type(net), Traceable) else "forward"

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, Whole) and m.leaf
        return whole or (self.composed and isinstance(m, Composed)) or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Images(node, self) if node.op == "placeholder" else super().proxy(node)


class StageTracer(FeatureTracer):
    """Traces ``stages``; what it shares with ``features`` has the same names there."""

    def __init__(self, net: nn.Module, composed: bool = False) -> None:
        super().__init__(net, composed)
        self.traced_func_name = "stages"


def features_of(net: Any) -> Callable[[Tensor], Tensor]:
    """The method that turns images [B, C, H, W] into features: ``features``, or ``forward`` where there is none."""
    return net.features if issubclass(type(net), Traceable) else net.forward  # a module called features is no method


def bake(module: nn.Module) -> nn.Module:
    """A copy with plain layers alone: of those that know their plain form (``baked()``), and of those with weights that
    are computed from others (`engram.backbone.nets.plain`).
    """
    module = copied(module)
    make_plain(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Composed):
                setattr(parent, name, child.baked())
    return module


def trace(backbone: nn.Module, composed: bool = False) -> fx.GraphModule:
    """The graph of ``backbone.features`` on a copy in evaluation mode, baked unless ``composed`` layers are kept.

    Raises:
        Untraceable: its code depends on the values of tensors, or fails.
    """
    with _explained():
        net = (copied(backbone) if composed else bake(backbone)).eval()
        graph = FeatureTracer(net, composed).trace(net)
        for node in graph.nodes:
            if node.op == "call_method" and node.target == "view" and not isinstance(node.args[-1], torch.dtype):
                node.target = "reshape"  # the same values, whatever layout the memory has
        return fx.GraphModule(net, graph)


def stage_names(backbone: nn.Module, composed: bool = False) -> list[str]:
    """Names of the nodes whose values ``backbone.stages`` returns, as they are in the graph of `trace`.

    Raises:
        Untraceable: as `trace`.
    """
    if not issubclass(type(backbone), StageMeans):
        raise Untraceable("it has no stages(x), the outputs of its stages; write that method (return [] for none)")
    with _explained():
        net = (copied(backbone) if composed else bake(backbone)).eval()
        graph = StageTracer(net, composed).trace(net)
    (output,) = (node for node in graph.nodes if node.op == "output")
    stages = output.args[0]
    return [node.name for node in stages if isinstance(node, fx.Node)] if isinstance(stages, list | tuple) else []


def traced_with_stages(backbone: nn.Module, composed: bool = False) -> tuple[fx.GraphModule, list[str]]:
    """`trace` and `stage_names` of a network whose stages are values that lead to its features.

    Raises:
        Untraceable: they are not, or as `trace`.
    """
    graph, stages = trace(backbone, composed), stage_names(backbone, composed)
    names = {node.name for node in graph.graph.nodes}
    if lost := [name for name in stages if name not in names]:
        raise Untraceable(
            f"stages(x) computes {', '.join(lost)}, which features(x) does not; call the same modules in both, in the"
            " same order"
        )
    return graph, stages


@contextmanager
def _explained() -> Iterator[None]:
    """Whatever happens while a stranger's code runs on stand-ins for tensors, as `Untraceable`."""
    try:
        yield
    except Exception as error:
        raise Untraceable(_what_happened(error)) from error


def _what_happened(error: Exception) -> str:
    inner = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(inner)]
    where = f", at {Path(frames[-1].filename).name}:{frames[-1].lineno} ({frames[-1].line})" if frames else ""
    text = (str(error).strip().splitlines() or [""])[0]
    if "control flow" in text:
        return f"its code branches on values of tensors{where}; write it without such branches"
    said = f"{type(error).__name__}: {text}"
    if isinstance(error, TraceError) or "Proxy" in text:
        return (
            f"its code needs the value of a tensor or of a size before there is one{where} ({said}); write it with"
            " operations on tensors of any size"
        )
    return f"its code raised an error while it was traced{where} ({said}); mend that"


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
