"""What every operation of a graph is between populations: an affine layer, a population, or a reason against it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from engram.snn.graph.activations import RELU, activation
from engram.snn.graph.calls import CATS, FLATTENINGS, MEANS, POOLS, RESHAPES, SCALINGS, SUMS, arguments
from engram.snn.graph.operations import BATCHNORMS, function_name, is_idle, max_pool, place, problem
from engram.snn.graph.pooling import RunningMaxPool
from engram.snn.lowering.network import Cells
from engram.snn.lowering.refusals import Refusal
from engram.snn.lowering.values import Value, every_channel, padded, placed
from engram.snn.neurons.integrate_fire import IntegrateFire
from engram.snn.neurons.quantised import QCFS
from engram.snn.readout.codes import Membrane, SinceFirst
from engram.snn.training.network import SpikingActivation
from engram.snn.training.retraining import ConvertedActivation

Found = Value | Refusal | tuple["Neurons", Value]

_SPIKES_ONLY = "a maximum is no sum, and only that of spikes of one layer is what neurons can compute"
_AVERAGE = "Train with --backbone.pooling avg, or stride"


@dataclass(frozen=True)
class Neurons:
    """Cells, and what their spike stands for: [C], None for 1.

    ``stay``: what a neuron sent comes back to it at the next step, so that it goes on as soon as it has begun.
    """

    cells: Cells
    sends: Tensor | None = None
    stay: bool = False


class Operations:
    """The operations of one graph.

    Args:
        shapes: of every value for one image, by node.
    """

    def __init__(self, graph: fx.GraphModule, shapes: Mapping[fx.Node, torch.Size]) -> None:
        self.graph, self.shapes = graph, shapes
        self.modules: dict[str, nn.Module] = dict(graph.named_modules())
        self.spikes: set[fx.Node] = set()

    def value(self, node: fx.Node, values: Mapping[fx.Node, Value]) -> Found:
        """What a node gives: a value, neurons with their drive, or why neither.

        Args:
            values: of all earlier nodes that are made of images.
        """
        sources = [source for source in node.all_input_nodes if source in values]
        x, module = values[sources[0]], self.modules.get(str(node.target)) if node.op == "call_module" else None
        if is_idle(node, self.modules):
            self._same(node, sources[0])
            return x
        neurons = self._neurons(node, module)
        if neurons is not None:
            if isinstance(neurons, Neurons) and neurons.cells.kind == "spiking":
                self.spikes.add(node)
            return (neurons, x) if isinstance(neurons, Neurons) else neurons
        if max_pool(node, self.modules) is not None:
            return self._maximum(node, sources[0], x)
        if isinstance(module, SinceFirst):
            return self._since_first(node, sources[0], x)
        found = self._layer(module, x, node) if module is not None else self._call(node, sources, values)
        return self._refusal(node) if found is None else found

    # --- neurons ---

    def _neurons(self, node: fx.Node, module: nn.Module | None) -> Neurons | Refusal | None:
        if isinstance(module, IntegrateFire):
            ones = torch.ones_like(module.threshold[:1])
            return Neurons(Cells(kind="spiking", threshold=ones, start=module.start, current=module.current))
        if isinstance(module, SpikingActivation):
            return self._trained(node, module)
        if activation(node, self.modules) == RELU:
            if any(isinstance(each, IntegrateFire | SpikingActivation) for each in self.modules.values()):
                reason = "it stays analog in front of spiking neurons"
                return self._refused(node, reason, "Convert the whole network: --hybrid none")
            return Neurons(Cells(kind="relu"))
        return None

    def _trained(self, node: fx.Node, module: SpikingActivation) -> Neurons | Refusal:
        p = module.layer.params(2)
        if p.neuron == "adaptive-lif":
            return self._refused(node, "its threshold rises with its spikes", "Train with --neuron lif")
        shape = self.shapes[node]
        scale = torch.ones_like(p.decay).view(1) if module.scale is None else module.scale
        threshold = (p.threshold.view(-1) * scale).clone()
        first = module.first(threshold.new_empty(1, *shape[1:]))
        start = torch.zeros(1)
        if first is not None:
            first = first if isinstance(first, Tensor) else threshold.new_tensor([first])
            pictured = first.ndim == 3 and threshold.numel() > 1
            start = first * (threshold.view(-1, 1, 1) if pictured else threshold)
        current = module.current if isinstance(module, ConvertedActivation) else torch.zeros(1)
        cells = Cells(
            kind="spiking",
            decay=1.0 if p.neuron == "if" else float(p.decay),
            synaptic_decay=p.synaptic_decay if p.neuron == "cuba-lif" else 0.0,
            threshold=threshold,
            reset=p.reset,
            start=start,
            current=current,
            refractory=p.refractory,
        )
        return Neurons(cells, module.scale)

    def _maximum(self, node: fx.Node, source: fx.Node, x: Value) -> Found:
        """Of spikes at one step: neurons that fire where a sum over their window is at least one, and keep nothing."""
        pool = max_pool(node, self.modules)
        if isinstance(pool, RunningMaxPool):
            reason = "a running maximum needs a counter for each of its inputs, and compares them"
            return self._refused(node, reason, "Convert a network with average pooling: --backbone.pooling avg")
        plain = isinstance(pool, nn.MaxPool2d) and not pool.ceil_mode and pool.dilation in (1, (1, 1))
        if source not in self.spikes or not plain or len(x.terms) != 1 or x.terms[0].layers:
            return self._refused(node, _SPIKES_ONLY, _AVERAGE)
        sums = nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, divisor_override=1)  # type: ignore[arg-type]
        (term,) = x.terms
        bare = Value(x.shape, (type(term)(term.source),))
        self.spikes.add(node)
        return Neurons(Cells(kind="spiking", reset="hard"), term.scale), bare.behind(sums, self._shape(node))

    def _since_first(self, node: fx.Node, source: fx.Node, x: Value) -> Found:
        """Neurons that fire where they get a spike, or have sent one a step before, and keep nothing."""
        if source not in self.spikes or len(x.terms) != 1 or x.terms[0].layers:
            return self._refused(node, "it has to follow neurons", "Read features of spiking neurons")
        self.spikes.add(node)
        (term,) = x.terms
        bare = Value(x.shape, (type(term)(term.source),))
        return Neurons(Cells(kind="spiking", reset="hard"), term.scale, stay=True), bare

    # --- layers ---

    def _layer(self, module: nn.Module, x: Value, node: fx.Node) -> Value | None:
        shape = self._shape(node)
        if isinstance(module, nn.Conv2d):
            return _convolved(module, x, shape)
        if isinstance(module, nn.Linear):
            return x.through(module, shape) if len(x.shape) == 1 else None
        if isinstance(module, BATCHNORMS):
            return self._normalised(module, x)
        if isinstance(module, Membrane):
            if module.constant is None:
                return x
            constant = module.constant.expand(x.shape[0])
            return x.through(every_channel(torch.ones_like(constant), constant, len(x.shape)), shape)
        if isinstance(module, nn.AvgPool2d):
            return x.behind(module, shape)
        if isinstance(module, nn.AdaptiveAvgPool2d):
            return self._divided(x, shape)
        if isinstance(module, nn.Flatten):
            return self._flat(x, shape)
        if isinstance(module, nn.ZeroPad2d) and min(module.padding) >= 0:
            return _padded(x, module.padding, shape)
        return None

    def _normalised(self, norm: Any, x: Value) -> Value | None:
        if norm.running_mean is None:
            return None
        scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
        shift = -norm.running_mean * scale + (0 if norm.bias is None else norm.bias)
        return x.through(every_channel(scale, shift, len(x.shape)), x.shape)

    def _divided(self, x: Value, shape: tuple[int, ...]) -> Value | None:
        """Equal windows, as adaptive pooling has them where sizes divide."""
        if len(shape) != 3 or any(a % b for a, b in zip(x.shape[1:], shape[1:], strict=True)):
            return None
        return x.behind(nn.AvgPool2d((x.shape[1] // shape[1], x.shape[2] // shape[2])), shape)

    def _flat(self, x: Value, shape: tuple[int, ...]) -> Value | None:
        if shape == x.shape:
            return x
        if len(shape) != 1:
            return None
        return x.behind(nn.Flatten(), shape, x.shape[1] * x.shape[2])

    def _call(self, node: fx.Node, sources: list[fx.Node], values: Mapping[fx.Node, Value]) -> Value | None:
        given, x, shape = arguments(node), values[sources[0]], self._shape(node)
        if node.target in SUMS:
            both = [values[source] for source in given.values() if isinstance(source, fx.Node) and source in values]
            same = len(both) == 2 and both[0].shape == both[1].shape == shape and len(given) == 2
            return Value(shape, (*both[0].terms, *both[1].terms)) if same else None
        if node.target in CATS:
            return self._joined([values[part] for part in given["tensors"]], given.get("dim", 0), shape)
        if node.target in SCALINGS and "rounding_mode" not in given:
            return self._scaled(node, given, values)
        if node.target in FLATTENINGS or node.target in RESHAPES:
            return self._flat(x, shape)
        if node.target == "contiguous":
            return x
        if node.target in MEANS:
            whole = len(x.shape) == 3 and sorted(d % 4 for d in _listed(given.get("dim"))) == [2, 3]
            mean = x.behind(nn.AvgPool2d(x.shape[1:]), (x.shape[0], 1, 1)) if whole else None  # type: ignore[arg-type]
            return None if mean is None else self._flat(mean, shape) if len(shape) == 1 else mean
        if node.target in POOLS:
            del given["input"]
            if node.target is F.adaptive_avg_pool2d:
                return self._divided(x, shape)
            return x.behind(nn.AvgPool2d(**given), shape)
        return None

    def _joined(self, parts: list[Value], dim: int, shape: tuple[int, ...]) -> Value | None:
        if dim % (len(shape) + 1) != 1:
            return None
        terms, first = [], 0
        for part in parts:
            like = next(self.graph.parameters())
            layer = placed(first, part.shape[0], shape[0], len(shape), like)
            terms += part.through(layer, shape).terms
            first += part.shape[0]
        return Value(shape, tuple(terms))

    def _scaled(self, node: fx.Node, given: Mapping[str, Any], values: Mapping[fx.Node, Value]) -> Value | None:
        both = [given.get("input"), given.get("other")]
        scaled = [each for each in both if isinstance(each, fx.Node) and each in values]
        others = [each for each in both if each not in scaled]
        factor = self._number(others[0]) if len(scaled) == 1 == len(others) else None
        divides = "div" in function_name(node)
        if factor is None or (divides and both[0] is others[0]):
            return None
        x = values[scaled[0]]
        factor = 1 / factor if divides else factor
        if factor.numel() == 1:
            return x.times(factor.view(1))
        per_channel = factor.shape[-len(x.shape) :] if factor.ndim > len(x.shape) else factor.shape
        plain = factor.numel() == x.shape[0] and tuple(per_channel) == (x.shape[0], *[1] * (len(x.shape) - 1))
        return x.times(factor.flatten()) if plain else None

    def _number(self, value: object) -> Tensor | None:
        if isinstance(value, int | float):
            return torch.tensor([float(value)])
        if isinstance(value, fx.Node) and value.op == "get_attr":
            found: Any = self.graph
            for part in str(value.target).split("."):
                found = getattr(found, part)
            return found.detach() if isinstance(found, Tensor) else None
        return None

    # --- small things ---

    def _same(self, node: fx.Node, source: fx.Node) -> None:
        if source in self.spikes:
            self.spikes.add(node)

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(self.shapes[node][1:])

    def _refusal(self, node: fx.Node) -> Refusal:
        if node.op == "call_module" and isinstance(self.modules.get(str(node.target)), QCFS):
            remedy = "Convert it first: engram run snn.convert --from TRIAL"
            return self._refused(node, "its levels are no neurons yet", remedy)
        reason, _, remedy = problem(node, self.modules).partition("; ")
        remedy = remedy[:1].upper() + remedy[1:]
        return self._refused(
            node, reason or "nobody has written it as weights", remedy or "Build it from Conv2d, Linear and AvgPool2d"
        )

    def _refused(self, node: fx.Node, reason: str, remedy: str) -> Refusal:
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        layer = place(node) if module is None else str(node.target)
        return Refusal(layer, function_name(node) if module is None else type(module).__name__, reason, remedy)


def _convolved(conv: nn.Conv2d, x: Value, shape: tuple[int, ...]) -> Value:
    """Behind a convolution, its padding in numbers."""
    if not isinstance(conv.padding, str):
        return x.through(conv, shape)
    around = [
        d * (k - 1) if conv.padding == "same" else 0 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)
    ]
    conv = copy.deepcopy(conv)
    if conv.padding_mode == "zeros" and any(each % 2 for each in around):
        sides = (around[1] // 2, around[1] - around[1] // 2, around[0] // 2, around[0] - around[0] // 2)
        bigger = (x.shape[0], x.shape[1] + around[0], x.shape[2] + around[1])
        x, conv.padding = _padded(x, sides, bigger), (0, 0)
    elif conv.padding_mode == "zeros":
        conv.padding = (around[0] // 2, around[1] // 2)
    return x.through(conv, shape)


def _padded(x: Value, sides: tuple[int, int, int, int], shape: tuple[int, ...]) -> Value:
    like = next((each.scale for each in x.terms if each.scale is not None), None)
    layers = [each for term in x.terms for each in term.layers]
    like = next((p for each in layers for p in each.parameters()), torch.zeros(1)) if like is None else like
    return x.through(padded(x.shape[0], sides, like), shape)


def _listed(value: object) -> list[int]:
    return (
        [int(each) for each in value]
        if isinstance(value, list | tuple)
        else [int(value)]
        if isinstance(value, int)
        else []
    )
