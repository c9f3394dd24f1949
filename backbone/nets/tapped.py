"""Any network under a tap: the contract's own, and those of strangers who never heard of taps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from engram.backbone.contract import Backbone, SeesImages, Site, StageMeans, Tap, Traceable
from engram.backbone.errors import must
from engram.backbone.nets.folding import FeatureTracer, StageTracer, features_of
from engram.backbone.nets.readout import read
from engram.backbone.nets.taps import Show, folded_steps, passed
from engram.backbone.nets.traced import Shown

_LASTING = "_lasting_taps"
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
    lasting = net.__dict__.get(_LASTING)
    return _steps(net, x, tap) if lasting is None else lasting.forward_steps(x, tap)


def _steps(net: nn.Module, x: Tensor, tap: Tap) -> Tensor:
    """As `tapped_steps`, but without the taps that stay on the network."""
    if honours_taps(net):
        return type(net).forward_steps(net, x, tap)  # type: ignore[attr-defined]
    if isinstance(net, Backbone) and net.steps > 1:
        what, got = "a network with steps of its own under a tap", f"{type(net).__name__}.forward_steps without one"
        raise must(what, "one whose forward_steps(x, tap) has a tap", got, "Add it, see engram.backbone.contract.")
    return folded_steps(net, x, tap, _run_of(net))


class _Lasting:
    """What stands in the place of a network's ``forward`` and ``forward_steps`` while taps stay on it."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.taps = net, list[Tap]()

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [steps, B, feature_dim]; ``tap`` comes after those that stay."""
        for one in self.taps:
            x = one.images(x) if isinstance(one, SeesImages) else x
        taps = self.taps if tap is None else [*self.taps, tap]

        def each(site: Site, value: Tensor) -> Tensor:
            for one in taps:
                value = passed(one, site, value)
            return value

        return _steps(self.net, x, each)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [B, feature_dim]."""
        features, net = self.forward_steps(x), self.net
        if len(features) == 1:
            return features.squeeze(0)
        return read(net, features) if isinstance(net, Backbone) else features.mean(0)


def attach(net: nn.Module, tap: Tap) -> None:
    """Let a tap stay on a network: its ``forward`` and ``forward_steps`` run under it from now on.

    A deep copy of the network has deep copies of its taps. ``features`` and ``stages`` know nothing of them. One that
    `SeesImages` sees the images first.
    """
    lasting = net.__dict__.setdefault(_LASTING, _Lasting(net))  # beside the modules: no part of the state
    lasting.taps.append(tap)
    net.__dict__ |= {"forward": lasting.forward, "forward_steps": lasting.forward_steps}


def detach(net: nn.Module, tap: Tap) -> None:
    """Take off a tap that stayed on a network."""
    taps = attached(net)
    taps.remove(tap)
    if not taps:
        for name in (_LASTING, "forward", "forward_steps"):
            del net.__dict__[name]


def attached(net: nn.Module) -> list[Tap]:
    """The taps that stay on a network, in the order in which values pass them."""
    lasting = net.__dict__.get(_LASTING)
    return [] if lasting is None else lasting.taps


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
        if issubclass(type(net), Traceable):
            return lambda x, _show: features_of(net)(x)
        return lambda x, _show: type(net).forward(net, x)  # its own, not what `attach` put there
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
