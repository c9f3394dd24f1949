"""Which values of a network reach which weights: its graph run on counts of paths, whatever its values are."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor, fx, nn

from engram.backbone.nets.shapes import value_shapes
from engram.snn.graph.linearity import added, is_addition, moved, reached, weights_of
from engram.snn.graph.sizes import is_size
from engram.snn.neurons.timed import TimedNeurons


class Kind(Enum):
    """What a value consists of; one that consists of several is analog.

    CONSTANT: the image, and what no spikes have a part in. SPIKES: spikes, and what pools or functions of single values
    make of them. ANALOG: everything else that spikes have a part in, results of layers above all.
    """

    CONSTANT = auto()
    SPIKES = auto()
    ANALOG = auto()


class Paths(fx.Interpreter):
    """Runs a network on counts: along how many paths each place is reached from the values that were last made anew.

    Values are made anew by neurons, by layers, and by whatever is not linear with weights of 1 (activations that stay
    analog, max pools, products of values): there counting begins again with one path for every value, a leaf. Spikes
    are followed through sums and averages as well, analog values only where they move: what a sum of these enters, it
    enters as one value. So gradients are taken of linear operations alone, and are exact counts; float64 holds them.

    Args:
        graph: left as it is.
        in_shape: (C, H, W) of one image.

    Attributes:
        neurons: neuron layer -> its leaf, [1, C, ...].
        leaves: node -> its leaf, for all other values made anew behind neurons, and for constants that meet them.
        kinds: node -> what its value consists of.
        weights: how many paths end in weights, in layers behind neurons.
        sums: how many end in neurons without a weight on the way, or where spikes are added to analog values.
        input_weights: how many paths of the image end in weights, or in neurons.
        macs, analog_macs: multiplications of an image's pass, and those of layers in front of all neurons.
        analog_driven: neurons that nothing but constants reach.
    """

    def __init__(self, graph: fx.GraphModule, in_shape: tuple[int, int, int]) -> None:
        super().__init__(graph)
        self.shapes = value_shapes(graph, in_shape, (TimedNeurons,))
        self.neurons: dict[str, Tensor] = {}
        self.leaves: dict[fx.Node, Tensor] = {}
        self.kinds: dict[fx.Node, Kind] = {}
        self.device: torch.device | None = None
        self.weights: Tensor | float = 0.0
        self.sums: Tensor | float = 0.0
        self.input_weights: Tensor | float = 0.0
        self.macs = self.analog_macs = self.analog_driven = 0

    def run_node(self, n: fx.Node) -> Any:
        sources = [source for source in n.all_input_nodes if source in self.kinds]
        if n.op == "placeholder":
            self.kinds[n], image = Kind.CONSTANT, super().run_node(n)
            self.device = image.device
            return image
        if n.op == "output" or not sources or is_size(n):
            return super().run_node(n)  # of parameters, sizes and numbers alone
        kinds = {self.kinds[source] for source in sources}
        self.kinds[n] = kinds.pop() if len(kinds) == 1 else Kind.ANALOG
        return self._counts(n, sources)

    def read_out(self, head: nn.Linear, features: Tensor) -> None:
        """Count the layer behind the graph. features: what `run` returned."""
        self.macs += _total(reached(head, torch.ones_like(features)))
        self.weights = self.weights + reached(head, features).sum()

    def _counts(self, n: fx.Node, sources: list[fx.Node]) -> Any:
        module = self.submodules[str(n.target)] if n.op == "call_module" else None
        if isinstance(module, TimedNeurons):
            return self._fire(n, self.env[sources[0]])
        reach = weights_of(n, module, sources[0], self.env.__getitem__) if len(sources) == 1 else None
        if reach is not None:
            return self._multiply(n, reach, self.env[sources[0]])
        load = self.env.__getitem__ if self.kinds[n] is Kind.CONSTANT else self._meeting
        described = (n, module, sources, self.shapes.get(n), load)
        counts = moved(*described)
        if counts is None and self.kinds[n] is not Kind.ANALOG:
            counts = added(*described)
        return self._begin(n, sources) if counts is None else counts

    def _meeting(self, source: fx.Node) -> Any:
        """Counts of a value where it meets spikes: layers that both enter multiply a constant at every step, too."""
        constant = self.kinds.get(source) is Kind.CONSTANT and source in self.shapes
        if constant and source not in self.leaves:
            self._leaf(source)
        return self.leaves[source] if constant else self.env[source]

    def _fire(self, n: fx.Node, x: Tensor) -> Tensor:
        if self.kinds[n] is Kind.CONSTANT:
            self.input_weights = self.input_weights + x.sum()
            self.analog_driven += x.numel()
        else:
            self.sums = self.sums + x.sum()
        self.kinds[n] = Kind.SPIKES
        self.neurons[str(n.target)] = self._ones(n).requires_grad_()
        return self.neurons[str(n.target)]

    def _multiply(self, n: fx.Node, reach: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        macs = _total(reach(torch.ones_like(x)))
        self.macs += macs
        if self.kinds[n] is Kind.CONSTANT:
            self.analog_macs += macs
            self.input_weights = self.input_weights + reach(x).sum()
            return self._ones(n)
        self.weights = self.weights + reach(x).sum()
        self.kinds[n] = Kind.ANALOG
        return self._leaf(n)

    def _begin(self, n: fx.Node, sources: list[fx.Node]) -> Tensor | None:
        """Values made anew."""
        if n not in self.shapes:
            return None  # several values, which begin where they are taken out
        if self.kinds[n] is Kind.CONSTANT:
            return self._ones(n)
        if is_addition(n, sources):
            self.sums = self.sums + sum(self.env[source].sum() for source in sources)
        elif Kind.SPIKES in (self.kinds[source] for source in sources):
            self.kinds[n] = Kind.SPIKES  # also where a gate multiplies them
        return self._leaf(n)

    def _leaf(self, n: fx.Node) -> Tensor:
        self.leaves[n] = self._ones(n).requires_grad_()
        return self.leaves[n]

    def _ones(self, n: fx.Node) -> Tensor:
        return torch.ones(self.shapes[n], dtype=torch.float64, device=self.device)


def _total(counts: Tensor) -> int:
    return round(float(counts.sum()))
