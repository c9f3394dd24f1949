"""Which gates stand before and behind the parameters of a network, read off its graph.

A weight from unit j to unit i does nothing where either is shut, so it may change for a task without harm to another
for which one of the two was. Units of a convolution are its channels. A value may pass pools, dropout, padding,
flattening and additions on its way to or from a gate; where anything else is met it counts as always open, which costs
capacity and never protection.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engram.backbone.contract import Graphed
from engram.backbone.nets.folding import Untraceable, trace
from engram.backbone.seeding import generator
from engram.continual.isolation.gates import Gate

Open = frozenset[str] | None
"""Gates of which one must be open for a unit to act, by name; None for a unit that always may."""

_PER_CHANNEL = (
    *(nn.AvgPool1d, nn.AvgPool2d, nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
    *(nn.AdaptiveMaxPool2d, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity, nn.Flatten, nn.ZeroPad2d),
)
"""Modules that keep channels apart and silence silent."""
_PER_CHANNEL_CALLS: tuple[Any, ...] = (
    *(torch.flatten, F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d, F.dropout, "flatten"),
)
_SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_NORMS = (nn.GroupNorm, nn.LayerNorm)
"""Norms that mix channels, with a gain and a bias per channel."""


@dataclass(frozen=True)
class Reach:
    """The gates around one parameter: ``behind`` of its units (dimension 0), ``before`` of its inputs (dimension 1)."""

    behind: Open
    before: Open

    def acts(self, parameter: Tensor, gates: Mapping[str, Gate], values: Mapping[str, Tensor]) -> Tensor:
        """How much a parameter acts when gates have some ``values``: min(a_i, a_j), broadcastable to it.

        values: gate -> [channels] in [0, 1].

        Source: Serra et al. 2018 (arXiv 1801.01423), equation 3.
        """
        shape = parameter.shape
        if not shape:  # one number for all units, such as a decay
            values_behind = [values[name].amax() for name in self.behind or ()]
            none = parameter.new_tensor(0.0 if self.behind is not None else 1.0)
            return torch.stack([none, *values_behind]).amax()
        units = _openness(self.behind, shape[0], gates, values, parameter)
        if len(shape) < 2:
            return units
        inputs = _openness(self.before, shape[1], gates, values, parameter)
        both = torch.minimum(units[:, None], inputs[None])
        return both.view(*both.shape, *[1] * (len(shape) - 2))


def _openness(
    gate_names: Open, count: int, gates: Mapping[str, Gate], values: Mapping[str, Tensor], like: Tensor
) -> Tensor:
    """[count], for units that are the channels of gates, or so many to a channel, or a part of so many channels."""
    found = torch.zeros(count, device=like.device)
    for name in gate_names or ():
        value, plain = values[name], gates[name].dimension == 1
        if len(value) == count:
            found = torch.maximum(found, value)
        elif plain and count % len(value) == 0:  # flattened pictures: channels come first
            found = torch.maximum(found, value.repeat_interleave(count // len(value)))
        elif plain and len(value) % count == 0:
            found = torch.maximum(found, value.view(count, -1).amax(1))
        else:
            return torch.ones_like(found)
    return found if gate_names is not None else torch.ones_like(found)


def reaches(net: nn.Module, gates: Mapping[str, Gate], frames: int | None = None) -> dict[str, Reach]:
    """The gates around every parameter of a network, by its name. Where nothing is known of one, it always acts.

    Args:
        net: a backbone, on its device.
        gates: on its activations.
        frames: how many an input has, where inputs are recordings.
    """
    if isinstance(net, Graphed):
        graph = net.as_graph()
        prefix = next(f"{name}." for name, module in net.named_modules() if module is graph)
    else:
        try:
            graph, prefix = trace(net, composed=True), ""
        except Untraceable:
            return tried(net, gates, frames)
    walk, found = _Walk(graph, prefix, gates), dict[str, Reach]()
    for node in graph.graph.nodes:
        if node.op == "call_module":
            for name, reach in walk.around(node).items():
                found[name] = reach if name not in found else _either(found[name], reach)
    unknown = Reach(None, None)
    return {
        name: Reach(_own(name, gates), None) if _own(name, gates) else found.get(name, unknown)
        for name, _ in net.named_parameters()
    }


@torch.no_grad()
def tried(net: Any, gates: Mapping[str, Gate], frames: int | None) -> dict[str, Reach]:
    """What `reaches` finds out of a network without a graph, by trying: the one gate behind a layer, where it has one.

    It is behind it if nothing changes when half of it is shut and the same half of the layer's units is changed.
    """
    training, device = net.training, next(net.parameters()).device
    shape = (4, *net.in_shape) if frames is None else (4, frames, *net.in_shape)
    images = torch.randn(shape, generator=generator(0, "reach")).to(device)
    net.eval()
    values = {name: gate.values for name, gate in gates.items()}
    for gate in gates.values():
        gate.values = {}  # what an earlier user shut must not hide anything
    found = {name: Reach(_own(name, gates), None) for name, _ in net.named_parameters()}
    for name, module in net.named_modules():
        own = dict(module.named_parameters(recurse=False))
        behind = next((gate for gate in gates if own and _is_behind(gates[gate], own.values(), net, images)), None)
        if behind is not None:
            found |= {f"{name}.{each}": Reach(frozenset({behind}), None) for each in own}
    for name, gate in gates.items():
        gate.values = values[name]
    net.train(training)
    return found


def _is_behind(gate: Gate, layer: Collection[Tensor], net: nn.Module, images: Tensor) -> bool:
    if any(not p.ndim or len(p) != gate.channels for p in layer):
        return False
    shut = torch.arange(gate.channels, device=images.device) % 2 == 0
    open_before = net(images)
    gate.values["trial"] = (~shut).float()
    shut_before, kept = net(images), [p.clone() for p in layer]
    for p in layer:
        p[shut] += 1.0
    same = torch.equal(net(images), shut_before)
    del gate.values["trial"]
    matters = not torch.equal(net(images), open_before)  # else the images do not show it
    for p, value in zip(layer, kept, strict=True):
        p.copy_(value)
    return same and matters


def _own(name: str, gates: Mapping[str, Gate]) -> Open:
    """The gates on the activation that a parameter is part of."""
    return frozenset(gate for gate in gates if name.startswith(gate.partition("#")[0] + ".")) or None


def _either(one: Reach, other: Reach) -> Reach:
    """Of a layer that is called more than once."""
    return Reach(_union(one.behind, other.behind), _union(one.before, other.before))


def _union(one: Open, other: Open) -> Open:
    return None if one is None or other is None else one | other


class _Walk:
    """Ways through one graph."""

    def __init__(self, graph: fx.GraphModule, prefix: str, gates: Mapping[str, Gate]) -> None:
        self.graph, self.prefix, self.gates = graph, prefix, gates
        self.known: dict[tuple[str, fx.Node], Open] = {}
        self.sites: dict[fx.Node, str] = {}
        calls = Counter[str]()
        for node in graph.graph.nodes:
            if node.op == "call_module":
                name = f"{prefix}{node.target}"
                calls[name] += 1
                self.sites[node] = name if calls[name] == 1 else f"{name}#{calls[name]}"

    def around(self, node: fx.Node) -> dict[str, Reach]:
        """Of the parameters of one layer."""
        module = self.graph.get_submodule(str(node.target))
        layer = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
        if not layer and not isinstance(module, (*_NORMS, _BatchNorm)):
            return {}
        whole = isinstance(module, nn.Linear) or (layer and module.groups == 1)
        before = self.before(node.all_input_nodes[0]) if whole else None
        reach = Reach(self.behind(node), before)
        return {f"{self.prefix}{node.target}.{name}": reach for name, _ in module.named_parameters(recurse=False)}

    def before(self, node: fx.Node) -> Open:
        """The gates that let through what ``node`` gives."""
        return self._once("before", node, self._before)

    def behind(self, node: fx.Node) -> Open:
        """The gates that what ``node`` gives must pass."""
        return self._once("behind", node, self._behind)

    def _once(self, way: str, node: fx.Node, look: Callable[[fx.Node], Open]) -> Open:
        if (way, node) not in self.known:
            self.known[way, node] = look(node)
        return self.known[way, node]

    def _before(self, node: fx.Node) -> Open:
        gate = self._gate(node)
        if gate is not None:
            return frozenset({gate})
        if self._is_sum(node) and len(node.all_input_nodes) == len(node.args):
            return self._all([self.before(source) for source in node.all_input_nodes])
        return self.before(node.all_input_nodes[0]) if self._is_per_channel(node) else None

    def _behind(self, node: fx.Node) -> Open:
        found = []
        for user in node.users:
            gate = self._gate(user)
            if gate is not None:
                found.append(frozenset({gate}))
            elif self._is_sum(user) or self._is_per_channel(user) or self._is(user, _BatchNorm):
                found.append(self.behind(user))
            else:
                return None
        return self._all(found)

    @staticmethod
    def _all(found: list[Open]) -> Open:
        union: Open = frozenset()
        for each in found:
            union = _union(union, each)
        return union

    def _gate(self, node: fx.Node) -> str | None:
        name = self.sites.get(node)
        return name if name in self.gates else None

    def _is(self, node: fx.Node, kinds: Any) -> bool:
        return node.op == "call_module" and isinstance(self.graph.get_submodule(str(node.target)), kinds)

    def _is_sum(self, node: fx.Node) -> bool:
        return node.op in ("call_function", "call_method") and node.target in _SUMS

    def _is_per_channel(self, node: fx.Node) -> bool:
        called = node.op in ("call_function", "call_method") and node.target in _PER_CHANNEL_CALLS
        return called or self._is(node, _PER_CHANNEL)
