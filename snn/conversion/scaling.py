"""Thresholds into weights: a graph whose neurons fire at 1 and send 1, computing what it computed before.

Every value gets a unit per channel, true value = value * unit. Neurons need a drive in units of their threshold and
send spikes in the same units; convolutions and linear layers translate, W'[o, i] = W[o, i] * unit[i] / unit[o] and
b'[o] = b[o] / unit[o]; what keeps channels apart (pooling, flattening, ReLU) passes units on. Where two units meet
without a layer between them (an identity path into an addition) one multiplication stays.

Source: Rueckauer et al. 2017 (doi 10.3389/fnins.2017.00682), equation 8, by channel.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from engram.backbone.nets.shapes import value_shapes
from engram.snn.graph.calls import CATS, FLATTENINGS, MEANS, POOLS, RESHAPES, SCALINGS, SQUEEZES, SUMS, arguments
from engram.snn.neurons.timed import TimedNeurons

_LAYERS = (nn.Conv2d, nn.Linear)
# Positively homogeneous and channel by channel: a factor may pass through. Maxima are, too.
_PASSING = (nn.ReLU, nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
_PASSING_CALLS = (*FLATTENINGS, *RESHAPES, *SQUEEZES, "contiguous", F.relu)
# These take the last two dimensions, whatever they are: channels must not be among them.
_PICTURES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d)
_PICTURE_CALLS = (*POOLS, F.max_pool2d)


def absorb(graph: fx.GraphModule, thresholds: Mapping[str, Tensor], in_shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Rewrite a lowered graph in place so that its activations work in units of their thresholds.

    The function from images to features stays the same; a ReLU that put out a now puts out a / theta.

    Args:
        graph: BatchNorm folded; activations are modules.
        thresholds: [C] or [1] > 0 of every activation that will be neurons, by module name.
        in_shape: (C, H, W) of one image.

    Returns: the unit [C] of every value, by node name.
    """
    _split_shared_layers(graph)
    work = _Absorption(graph, thresholds, value_shapes(graph, in_shape, (TimedNeurons,)))
    work.run()
    graph.recompile()
    return {node.name: unit for node, unit in work.have.items()}


class _Absorption:
    def __init__(
        self, graph: fx.GraphModule, thresholds: Mapping[str, Tensor], shapes: Mapping[fx.Node, torch.Size]
    ) -> None:
        self.graph, self.thresholds, self.shapes = graph, thresholds, shapes
        self.want: dict[fx.Node, Tensor | None] = {}
        self.have: dict[fx.Node, Tensor] = {}
        self.scales = 0

    def run(self) -> None:
        nodes = list(self.graph.graph.nodes)
        for node in reversed(nodes):
            demands = (self._demand(user, node) for user in node.users if node in self.shapes)
            self.want[node] = next((demand for demand in demands if demand is not None), None)
        for node in nodes:
            if node in self.shapes:
                self.have[node] = self._settle(node)
            elif node.op == "output":
                for source in node.all_input_nodes:
                    self._bring(node, source, self._ones(source))

    # --- what a value's consumers would like ---

    def _demand(self, user: fx.Node, node: fx.Node) -> Tensor | None:
        """The unit in which ``user`` wants ``node``; None when any will do."""
        if user.op == "output":
            return self._ones(node)
        if self._is_neuron(user):
            return self._theta(user)
        wanted = self.want.get(user)
        if wanted is None:
            return None
        if user.target in SUMS:
            return wanted if self.shapes[node] == self.shapes[user] else None
        if user.target in CATS:
            return self._slice(user, node, wanted)
        return self._unflattened(wanted, user, node) if self._passes(user) else None

    def _slice(self, cat: fx.Node, node: fx.Node, wanted: Tensor) -> Tensor | None:
        if self._cat_dim(cat) != 1:
            return wanted
        parts = list(arguments(cat)["tensors"])
        before = sum(self.shapes[part][1] for part in parts[: parts.index(node)])
        return wanted[before : before + self.shapes[node][1]]

    def _unflattened(self, wanted: Tensor, user: fx.Node, node: fx.Node) -> Tensor | None:
        channels = self.shapes[node][1]
        if len(wanted) == channels:
            return wanted
        rows = wanted.view(channels, -1)
        return rows[:, 0] if bool((rows == rows[:, :1]).all()) else None

    # --- what it gets ---

    def _settle(self, node: fx.Node) -> Tensor:
        sources = [source for source in node.all_input_nodes if source in self.shapes]
        if not sources:
            return self._ones(node)[:1] if node.op == "get_attr" else self._ones(node)
        if self._is_neuron(node):
            theta = self._theta(node)
            self._bring(node, sources[0], theta)
            return theta
        wanted = self.want[node]
        if self._translates(node, sources[0]):
            unit = self._ones(node) if wanted is None else wanted
            self._translate(node, self.have[sources[0]], unit)
            return unit
        if node.target in SUMS and len(sources) == 2 == len(node.args):
            return self._meet(node, sources, wanted)
        if node.target in CATS:
            if self._cat_dim(node) != 1:
                return self._meet(node, sources, wanted)
            return torch.cat([self._every(part) for part in arguments(node)["tensors"]])
        if self._passes(node):
            have = self.have[sources[0]]
            return have.repeat_interleave(self.shapes[node][1] // len(have))
        return self._meet(node, sources, self._ones(sources[0]), self._ones(node))

    def _meet(self, node: fx.Node, sources: list[fx.Node], unit: Tensor | None, after: Tensor | None = None) -> Tensor:
        unit = self.have[sources[0]] if unit is None else unit
        for source in sources:
            self._bring(node, source, unit)
        return unit if after is None else after

    def _bring(self, user: fx.Node, source: fx.Node, unit: Tensor) -> None:
        """Put a multiplication in front of ``user`` unless ``source`` is in the unit it needs."""
        have = self.have[source]
        if torch.equal(*torch.broadcast_tensors(have, unit)):
            return
        dims = len(self.shapes[user if source.op == "get_attr" else source])  # a parameter may lack dimensions
        name = f"scale_{self.scales}"
        self.scales += 1
        self.graph.register_buffer(name, _ratio(have, unit).view(1, -1, *[1] * (dims - 2)))
        with self.graph.graph.inserting_before(user):
            scaled = self.graph.graph.call_function(operator.mul, (source, self.graph.graph.get_attr(name)))
        user.replace_input_with(source, scaled)

    @torch.no_grad()
    def _translate(self, node: fx.Node, before: Tensor, after: Tensor) -> None:
        """Weights of a layer for inputs in units ``before`` and outputs in units ``after``."""
        layer: Any = self._module(node)
        groups = getattr(layer, "groups", 1)
        ratio = _ratio(before.view(groups, 1, -1), after.view(groups, -1, 1)).flatten(0, 1)  # [out, in / groups]
        weight: Tensor = layer.weight
        layer.weight = nn.Parameter(weight * ratio.view(*ratio.shape, *[1] * (weight.ndim - 2)), requires_grad=False)
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias / after, requires_grad=False)

    # --- small questions ---

    def _module(self, node: fx.Node) -> nn.Module:
        return self.graph.get_submodule(str(node.target))

    def _translates(self, node: fx.Node, source: fx.Node) -> bool:
        """Whether it is a layer whose weights can carry units: one that takes dimension 1."""
        module = self._module(node) if node.op == "call_module" else None
        return isinstance(module, nn.Linear if len(self.shapes[source]) == 2 else nn.Conv2d)

    def _is_neuron(self, node: fx.Node) -> bool:
        return node.op == "call_module" and str(node.target) in self.thresholds

    def _theta(self, node: fx.Node) -> Tensor:
        return self.thresholds[str(node.target)].expand(self.shapes[node][1])

    def _ones(self, node: fx.Node) -> Tensor:
        like = next(iter(self.thresholds.values()))
        shape = self.shapes[node]
        return like.new_ones(shape[1] if len(shape) > 1 else 1)

    def _every(self, node: fx.Node) -> Tensor:
        """The unit of a value, one number for each of its channels."""
        return self.have[node].expand(self.shapes[node][1])

    def _cat_dim(self, node: fx.Node) -> int:
        return int(arguments(node).get("dim", 0)) % len(self.shapes[node])

    def _passes(self, node: fx.Node) -> bool:
        """Whether the node treats every channel alike, so that its output has the unit of its input."""
        (source, *others) = [each for each in node.all_input_nodes if each in self.shapes]
        if others:
            return False
        before, after = self.shapes[source], self.shapes[node]
        if node.target in MEANS:
            dims = arguments(node).get("dim", 1)
            return all(int(dim) % len(before) > 1 for dim in (dims if isinstance(dims, list | tuple) else [dims]))
        if node.target in SCALINGS:
            return True  # by a number: it has one input
        if node.op == "call_module":
            module = self._module(node)
            known = isinstance(module, (*_PASSING, TimedNeurons))
            pictures = isinstance(module, _PICTURES)
        else:
            known, pictures = node.target in _PASSING_CALLS, node.target in _PICTURE_CALLS
        known |= pictures and len(before) == 4
        return known and (after[1] == before[1] or (len(after) == 2 and after.numel() == before.numel()))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return (above.double() / below.double()).to(above.dtype)


def _split_shared_layers(graph: fx.GraphModule) -> None:
    """Give every use of a layer weights of its own: units differ from place to place."""
    seen: dict[str, int] = {}
    for node in graph.graph.nodes:
        name = str(node.target)
        if node.op != "call_module" or not isinstance(module := graph.get_submodule(name), _LAYERS):
            continue
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            node.target = f"{name}_use{seen[name]}"
            graph.add_submodule(node.target, copy.deepcopy(module))
