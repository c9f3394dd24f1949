"""Any network under a tap: the contract's own, and those of strangers who never heard of taps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from engram.backbone.contract import Backbone, Site, StageMeans, Tap
from engram.backbone.errors import must
from engram.backbone.nets.folding import FeatureTracer, StageTracer, features_of
from engram.backbone.nets.taps import Show, folded_steps
from engram.backbone.nets.traced import Shown

Key = tuple[tuple[int, bool], ...]
_GRAPHS: WeakKeyDictionary[nn.Module, dict[Key, tuple[fx.GraphModule, list[str]] | None]] = WeakKeyDictionary()
"""The graphs of strangers' networks, on their own modules, by those and their modes."""


def honours_taps(net: nn.Module) -> bool:
    """Whether a network's ``forward_steps`` takes a tap."""
    steps = getattr(type(net), "forward_steps", None)  # the one question no protocol answers: a method's arguments
    return steps is not None and "tap" in signature(steps).parameters


def tapped_steps(net: nn.Module, x: Tensor, tap: Tap) -> Tensor:
    """``forward_steps(x, tap)`` of any network.

    A network whose ``forward_steps`` has no tap is taken as one without state: its activations that are modules, its
    features and, where its code can be traced, its stages are sites.

    Args:
        net: a backbone, or any module from images [N, C, H, W] to features [N, D].
        x: [B, C, H, W] or [B, T, C, H, W] normalised.
        tap: sees, and may replace, what is at every site.

    Returns: [steps, B, feature_dim].

    Raises:
        UserError: the network has steps of its own, and no tap; the tap returns a value of another shape.
    """
    if honours_taps(net):
        return net.forward_steps(x, tap)  # type: ignore[operator]
    if isinstance(net, Backbone) and net.steps > 1:
        what, got = "a network with steps of its own under a tap", f"{type(net).__name__}.forward_steps without one"
        raise must(what, "one whose forward_steps(x, tap) has a tap", got, "Add it, see engram.backbone.contract.")
    return folded_steps(net, x, tap, _run_of(net))


def sites(net: Any, frames: int | None = None) -> dict[Site, torch.Size]:
    """Every site of a network, and the shape [S, 1, C, ...] of its value for one blank image, in the order they run.

    Args:
        net: a network with ``in_shape``, on its device.
        frames: how many frames a blank recording has; None for a still image.

    Raises:
        UserError: as `tapped_steps`.
    """
    found: dict[Site, torch.Size] = {}

    def see(site: Site, value: Tensor) -> Tensor:
        found[site] = value.shape
        return value

    look(net, see, frames)
    return found


@torch.no_grad()
def look(net: Any, tap: Tap, frames: int | None = None) -> None:
    """Run a blank image, or a recording of ``frames`` of them, under a tap, in evaluation mode."""
    device = next((tensor.device for tensor in net.parameters()), None)
    shape = (1, *net.in_shape) if frames is None else (1, frames, *net.in_shape)
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        tapped_steps(net, torch.zeros(shape, device=device), tap)
    finally:
        for module, training in modes:
            module.training = training


def _run_of(net: nn.Module) -> Callable[[Tensor, Show], Tensor]:
    """What runs a stranger's network: its graph, which has its stages, or its code where there is none."""
    key = tuple((id(module), module.training) for module in net.modules())
    graphs = _GRAPHS.setdefault(net, {})
    if key not in graphs:
        graphs[key] = _graph_of(net)
    found = graphs[key]
    if found is None:
        return lambda x, _show: features_of(net)(x)
    return partial(_run_graph, *found)


def _run_graph(graph: fx.GraphModule, stage_nodes: list[str], x: Tensor, show: Show) -> Tensor:
    return Shown(graph, stage_nodes, show).run(x)


def _graph_of(net: nn.Module) -> tuple[fx.GraphModule, list[str]] | None:
    """The graph of a network's features, on its own modules in their present mode, and the nodes of its stages."""
    if not issubclass(type(net), StageMeans):
        return None
    try:
        graph = FeatureTracer(net, composed=True).trace(net)
        (output,) = (node for node in StageTracer(net, composed=True).trace(net).nodes if node.op == "output")
    except Exception:  # a stranger's code on stand-ins for tensors may fail in any way
        return None
    wanted, names = output.args[0], {node.name for node in graph.nodes}
    stages = [str(node) for node in wanted] if isinstance(wanted, list | tuple) else []
    return (fx.GraphModule(net, graph), stages) if stages and names.issuperset(stages) else None
