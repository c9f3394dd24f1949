"""A network of ours as a NIR graph, with its semantics written down, and what NIR cannot say of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from engram.backbone.contract import Row
from engram.backbone.errors import UserError, must
from engram.snn.interchange.nir.graph import Edge, Graph, Node, Setting, in_order
from engram.snn.interchange.nir.semantics import Semantics, as_metadata
from engram.snn.interchange.nir.writing import with_shapes
from engram.snn.lowering.network import INPUT, Cells, Connection, Lowered, Population

DT = 1e-4
"""Seconds in a step, as the exporters of other libraries for PyTorch have it."""
INPUT_NODE, OUTPUT_NODE = "input", "output"
ONE_EVENT = 1 / 255
"""What one event is to a `Lowered` network; to its file it is 1."""
APPROXIMATE = "--allow-approximate"


@dataclass(frozen=True)
class Exported:
    """A graph, how it is run to compute what the network did, and a row for everything that NIR has no field for.

    Attributes:
        approximations: of ``node``, ``what`` and ``consequence``: what other tools will not know. engram reads it from
            the graph's metadata.
        notes: what whoever runs the graph has to do with what leaves it; no part of any graph.
    """

    graph: Graph
    semantics: Semantics
    approximations: tuple[Row, ...]
    notes: tuple[str, ...]


def export(lowered: Lowered, dt: float = DT, allow_approximate: bool = False) -> Exported:
    """A network as a NIR graph: its layers as they are, its neurons with r so that what arrives is added as a whole.

    Units are seconds and steps of ``dt``. NIR's neurons fire above their threshold, ours at it: thresholds are written
    one float32 below, which is the same for all potentials that are float32. Frames arrive as whole numbers of events,
    pictures in [0, 1].

    Args:
        lowered: `engram.snn.lowering.lower.lower` of a classifier.
        dt: seconds.
        allow_approximate: write what NIR has no field for into metadata, which other tools do not read.

    Raises:
        UserError: NIR cannot say something of it at all; or it has no field for something, and that is not allowed.
    """
    if not dt > 0:
        raise must("dt", "above 0 (seconds)", dt, "0.0001 is usual.")
    work = _Export(lowered, dt)
    graph = work.graph()
    if work.impossible:
        raise UserError("\n".join(work.impossible))
    if work.approximations and not allow_approximate:
        lines = [
            f"{row['node']}: {row['what']} must be something NIR has a field for; got none. {row['consequence']}"
            for row in work.approximations
        ]
        raise UserError("\n".join([*lines, f"Add {APPROXIMATE} to write it into metadata, which engram alone reads."]))
    return Exported(graph, work.semantics(), tuple(work.approximations), tuple(work.notes))


@dataclass
class _Export:
    lowered: Lowered
    dt: float
    nodes: dict[str, Node | Graph] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    approximations: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    impossible: list[str] = field(default_factory=list)
    late: set[Edge] = field(default_factory=set)
    """Edges on the way of connections with a delay."""
    circles: int = 0

    def graph(self) -> Graph:
        self.nodes[INPUT_NODE] = Node(kind="Input", settings={"shape": self.lowered.in_shape})
        *neurons, read = self.lowered.populations
        self.names = {INPUT: INPUT_NODE}
        for each in neurons:
            self.names[each.name] = self._free(each.name.replace(".", "_"))
        for each in neurons:
            name = self.names[each.name]
            node = self._neurons(each, name)
            self.nodes[name] = node or Node(kind="IF")
            self._arrive(each, name)
        self._read_out(read)
        self.nodes[OUTPUT_NODE] = Node(kind="Output", settings={"shape": read.shape})
        self._arrive(read, OUTPUT_NODE)
        graph = Graph(nodes=self.nodes, edges=tuple(self.edges), metadata=as_metadata(self.semantics()))
        self._require_circles(graph)
        return graph if self.impossible else with_shapes(graph)

    def semantics(self) -> Semantics:
        hard = all(each.cells.reset == "hard" for each in self._resetting())
        reset, low = "hard" if hard else "soft", self.lowered
        return Semantics(dt=self.dt, reset=reset, readout=low.readout, delay=low.delay, steps=low.steps)

    def _resetting(self) -> Iterator[Population]:
        """Populations to which it makes a difference how they are reset."""
        return (each for each in self.lowered.populations if each.cells.kind == "spiking" and each.cells.decay)

    def _approximate(self, node: str, what: str, consequence: str) -> None:
        self.approximations.append({"node": node, "what": what, "consequence": consequence})

    def _read_out(self, read: Population) -> None:
        """The last population is not written: what it gets leaves the graph."""
        cells, low = read.cells, self.lowered
        if cells.kind != "integrator" or cells.decay != 1 or cells.synaptic_decay or bool(cells.current.any()):
            rule = "an integrator without a leak or a current"
            self.impossible.append(
                str(must("the read-out of a network for NIR", rule, read.name, "Use a linear head."))
            )
        if low.readout == "mean":
            after = f" after the first {low.delay}" if low.delay else ""
            self.notes.append(
                f"logits are the mean of the output over steps{after}: whoever runs the file has to take it"
            )

    def _neurons(self, population: Population, name: str) -> Node | None:
        cells, shape = population.cells, population.shape
        if cells.kind != "spiking":
            remedy = "Convert it (snn.convert), or train it as a spiking one (snn.train)."
            self.impossible.append(str(must(f"neurons {name} of a network for NIR", "spiking", cells.kind, remedy)))
            return None
        metadata: dict[str, Any] = {}
        if cells.reset == "soft" and cells.decay:
            text = "Tools that set the potential to v_reset lose what was above the threshold at every spike."
            self._approximate(name, "the soft reset", text)
        if cells.reset != self.semantics().reset and cells.decay:
            rule = "reset in one way"
            self.impossible.append(str(must(f"neurons {name} of a network for NIR", rule, cells.reset, "Train again.")))
        if bool(cells.start.any()):
            self._approximate(name, "the potential before the first step", "Other tools begin at 0, and fire later.")
            metadata["start"] = np.broadcast_to(spread(cells.start, shape), shape).copy()
        if cells.refractory:
            self._approximate(name, "the refractory period", "Other tools fire again at once.")
            metadata["refractory"] = np.array([cells.refractory])
        arrays = self._constants(cells, shape, name)
        return None if arrays is None else Node(kind=_kind(cells), arrays=arrays, metadata=metadata)

    def _constants(self, cells: Cells, shape: tuple[int, ...], name: str) -> dict[str, np.ndarray] | None:
        """NIR's arrays, in float64: r dt / tau is 1, and 1 - dt / tau the decay."""
        ones, rest = np.ones(shape), 1 - float(cells.decay)
        below = np.nextafter(spread(cells.threshold, shape).astype(np.float32), np.float32(-np.inf))
        made = {"v_threshold": np.broadcast_to(below, shape).astype(np.float64), "v_reset": 0 * ones}
        if not rest:
            if cells.synaptic_decay:
                rule = "leaky, which a NIR neuron with a synaptic current always is"
                text = must(f"neurons {name} of a network for NIR", rule, "none that leak", "Train with --decay.")
                self.impossible.append(str(text))
                return None
            return {"r": ones / self.dt, **made}
        tau = ones * self.dt / rest
        leak = np.broadcast_to(spread(cells.current, shape), shape) / rest
        made |= {"r": ones / rest, "v_leak": leak.astype(np.float64)}
        if not cells.synaptic_decay:
            return {"tau": tau, **made}
        share = 1 - float(cells.synaptic_decay)
        return {"tau_mem": tau, "tau_syn": ones * self.dt / share, "w_in": ones / share, **made}

    def _arrive(self, population: Population, name: str) -> None:
        """The layers of every connection, and a current that no leak can stand for as the bias of the first."""
        cells = population.cells
        plain = cells.kind == "spiking" and cells.decay == 1 and bool(cells.current.any())
        for place, each in enumerate(population.connections):
            layers = list(each.layers)
            if plain and not place:
                layers = _with_current(layers, cells.current, population.shape)
            circle = self._in_circle(each, population.name)
            self.circles += circle
            self._chain(each, layers, name, f"{name}_in{f'{place}_' if place else ''}", each.delay - circle)

    def _chain(self, connection: Connection, layers: Sequence[nn.Module], name: str, prefix: str, late: int) -> None:
        """One node for each layer, and a Delay of so many steps."""
        last, edges = self.names[connection.source], list[Edge]()
        events = self.lowered.frames and connection.source == INPUT
        made = [node for layer in layers for node in self._layer(layer, name)]
        if late > 0:
            made.append(Node(kind="Delay", arrays={"delay": np.array(late * self.dt)}))
        for count, node in enumerate(made):
            if events and "weight" in node.arrays:
                arrays = {**node.arrays, "weight": node.arrays["weight"] * np.float32(ONE_EVENT)}
                node, events = Node(kind=node.kind, arrays=arrays, settings=node.settings), False
            key = self._free(f"{prefix}{count}")
            self.nodes[key] = node
            edges.append((last, key))
            last = key
        edges.append((last, name))
        self.edges += edges
        if connection.delay:
            self.late |= {*edges}

    def _layer(self, layer: nn.Module, name: str) -> Iterator[Node]:
        try:
            yield layer_node(layer)
        except ValueError as error:
            remedy = "Use a network without it."
            self.impossible.append(str(must(f"a layer before {name} for NIR", "one it has a node for", error, remedy)))

    def _in_circle(self, connection: Connection, target: str) -> bool:
        """Whether what it brings comes back to where it came from; the edge that closes a circle takes a step."""
        after: dict[str, set[str]] = {}
        for each in self.lowered.populations:
            for one in each.connections:
                after.setdefault(one.source, set()).add(each.name)
        seen, todo = set[str](), [target]
        while todo:
            here = todo.pop()
            if here not in seen:
                seen.add(here)
                todo += after.get(here, ())
        return connection.delay > 0 and connection.source in seen

    def _require_circles(self, graph: Graph) -> None:
        closing = in_order(graph)[1]
        if not closing <= self.late or len(closing) != self.circles:
            rule, got = (
                "closed by the connections that have a delay, one each",
                ", ".join(f"{a} -> {b}" for a, b in closing),
            )
            self.impossible.append(str(must("the circles of a network for NIR", rule, got, "Use a network without.")))

    def _free(self, name: str) -> str:
        while name in self.nodes or name in self.names.values() or name in (INPUT_NODE, OUTPUT_NODE):
            name += "_"
        return name


def _kind(cells: Cells) -> str:
    return "IF" if cells.decay == 1 else "CubaLIF" if cells.synaptic_decay else "LIF"


def spread(value: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """[1], [C] or [C, H, W] as an array that broadcasts to ``shape``."""
    found = value.detach().cpu().numpy()
    return found if found.ndim == len(shape) > 1 else found.reshape(-1, *[1] * (len(shape) - 1))


def _with_current(layers: list[nn.Module], current: Tensor, shape: tuple[int, ...]) -> list[nn.Module]:
    """The same layers and one more, which adds a current to every channel."""
    from engram.snn.lowering.values import every_channel

    whole = current.expand(shape[0])
    return [*layers, every_channel(whole.new_ones(shape[0]), whole, len(shape))]


def layer_node(layer: nn.Module) -> Node:
    """A layer as a node.

    Raises:
        ValueError: NIR has none for it; the text says what it is.
    """
    if isinstance(layer, nn.Linear):
        weight = {"weight": _array(layer.weight)}
        return (
            Node(kind="Linear", arrays=weight)
            if layer.bias is None
            else Node(kind="Affine", arrays={**weight, "bias": _array(layer.bias)})
        )
    if isinstance(layer, nn.Conv2d):
        if layer.padding_mode != "zeros":
            raise ValueError(f"a convolution with {layer.padding_mode} around the picture")
        bias = np.zeros(layer.out_channels, np.float32) if layer.bias is None else _array(layer.bias)
        settings: dict[str, Setting] = {
            "stride": _pair(layer.stride),
            "padding": layer.padding if isinstance(layer.padding, str) else _pair(layer.padding),
            "dilation": _pair(layer.dilation),
            "groups": layer.groups,
        }
        return Node(kind="Conv2d", arrays={"weight": _array(layer.weight), "bias": bias}, settings=settings)
    if isinstance(layer, nn.AvgPool2d):
        kernel, padding = _pair(layer.kernel_size), _pair(layer.padding)
        if layer.ceil_mode or layer.divisor_override or (any(padding) and not layer.count_include_pad):
            raise ValueError("an average over windows that are cut off at the border")
        stride = kernel if layer.stride is None else _pair(layer.stride)
        return Node(kind="AvgPool2d", settings={"kernel_size": kernel, "stride": stride, "padding": padding})
    if isinstance(layer, nn.Flatten) and layer.start_dim == 1:
        return Node(kind="Flatten", settings={"start_dim": 0, "end_dim": layer.end_dim - (layer.end_dim > 0)})
    raise ValueError(type(layer).__name__)


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().float().numpy().copy()


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))
