"""A NIR graph as plain data: nodes with arrays and settings, and the edges between them.

Source: Pedersen et al. 2024 (Nature Communications 15, 8122), and nir 1.0.8 for the names of fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from engram.backbone.errors import must

Shape: TypeAlias = tuple[int, ...]
Setting: TypeAlias = "int | str | tuple[int, ...]"
Edge: TypeAlias = tuple[str, str]

NEURONS: Mapping[str, tuple[str, ...]] = {
    "I": ("r",),
    "IF": ("r", "v_threshold", "v_reset"),
    "LI": ("tau", "r", "v_leak"),
    "LIF": ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
}
"""Nodes with a potential, and their arrays: one value for each neuron, or one for all."""
SPIKING = ("IF", "LIF", "CubaLIF")
"""Those of them that send spikes; the others send their potential."""
ARRAYS: Mapping[str, tuple[str, ...]] = {
    **NEURONS,
    "Affine": ("weight", "bias"),
    "Linear": ("weight",),
    "Scale": ("scale",),
    "Threshold": ("threshold",),
    "Delay": ("delay",),
    "Conv1d": ("weight", "bias"),
    "Conv2d": ("weight", "bias"),
}
"""The arrays of the other kinds of node; kinds that are not here have none."""
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "Input": ("shape",),
    "Output": ("shape",),
    "Conv1d": ("input_shape", "stride", "padding", "dilation", "groups"),
    "Conv2d": ("input_shape", "stride", "padding", "dilation", "groups"),
    "Flatten": ("input_type", "start_dim", "end_dim"),
    "SumPool2d": ("kernel_size", "stride", "padding"),
    "AvgPool2d": ("kernel_size", "stride", "padding"),
}
"""Whole numbers and words of the kinds that have some."""
KINDS = (*ARRAYS, *(kind for kind in SETTINGS if kind not in ARRAYS))
"""Every kind of node that is read; a graph within a graph beside them."""
GRAPH = "NIRGraph"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node.

    Attributes:
        kind: of `KINDS`, or ``Identity`` for the ends of a graph within a graph once it is laid flat.
        arrays: by field, those that `ARRAYS` names.
        settings: by field, those that `SETTINGS` names and the file gave.
        metadata: what the file says beside that: texts and arrays, and groups of them.
    """

    kind: str
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    settings: Mapping[str, Setting] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def start(self) -> np.ndarray | None:
        """The potential before the first step, where engram wrote one into the metadata: NIR has no field for it."""
        found = self.metadata.get("start")
        usable = isinstance(found, np.ndarray) and found.dtype.kind in "fiu" and np.isfinite(found).all()
        return found if usable and self.kind in NEURONS else None

    @property
    def refractory(self) -> int:
        """Steps after a spike in which nothing fires, as `start`."""
        found = self.metadata.get("refractory")
        if self.kind not in SPIKING or not isinstance(found, np.ndarray) or found.dtype.kind not in "iu":
            return 0
        return min(max(int(found.reshape(-1)[0]), 0), 10**6) if found.size == 1 else 0

    def pair(self, name: str) -> tuple[int, int]:
        """A setting of a layer of two dimensions, as (height, width)."""
        value = self.settings[name]
        return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes by name, some of which may be graphs, and edges. What arrives at a node by several edges is added."""

    nodes: Mapping[str, Node | Graph]
    edges: tuple[Edge, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def named(self, kind: str) -> list[str]:
        """The names of the nodes of one kind."""
        return [name for name, node in self.nodes.items() if isinstance(node, Node) and node.kind == kind]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A graph laid flat and put in order: what it takes to run it.

    Attributes:
        nodes: in an order in which every node comes after those whose outputs of the same step it gets.
        now: by node, those whose outputs of the same step it gets.
        before: by node, those whose outputs of the step before it gets: the edges that close a circle.
        shapes: by node, the shape that leaves it.
        taken: by node, the shape that arrives at it.
        source, end: the names of the input and the output.
    """

    nodes: Mapping[str, Node]
    now: Mapping[str, tuple[str, ...]]
    before: Mapping[str, tuple[str, ...]]
    shapes: Mapping[str, Shape]
    taken: Mapping[str, Shape]
    source: str
    end: str

    @property
    def circular(self) -> bool:
        return any(self.before.values())


def laid_flat(graph: Graph) -> Graph:
    """The same graph without graphs inside: their nodes are called ``GRAPH.NODE``, their ends are of kind Identity.

    Raises:
        UserError: two nodes would have one name.
    """
    nodes: dict[str, Node | Graph] = {}
    edges: list[Edge] = []
    entry: dict[str, str] = {}
    leave: dict[str, str] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, Node):
            nodes[name] = node
            continue
        inner = laid_flat(node)
        (entry[name],), (leave[name],) = (
            [f"{name}.{end}" for end in inner.named(kind)] for kind in ("Input", "Output")
        )
        for own, each in inner.nodes.items():
            assert isinstance(each, Node)
            if f"{name}.{own}" in graph.nodes:
                rule = "one that no node of a graph inside has"
                raise must(f"the name {name}.{own} of a NIR node", rule, "one for two", "Rename it.")
            nodes[f"{name}.{own}"] = replace(each, kind="Identity") if each.kind in ("Input", "Output") else each
        edges += [(f"{name}.{a}", f"{name}.{b}") for a, b in inner.edges]
    edges += [(leave.get(a, a), entry.get(b, b)) for a, b in graph.edges]
    return Graph(nodes=nodes, edges=tuple(edges), metadata=graph.metadata)


def in_order(graph: Graph) -> tuple[list[str], set[Edge]]:
    """The nodes that the input reaches, each after those it depends on, and the edges that close a circle.

    The graph is walked from its input, edges in their order; an edge back to a node on the way there closes a circle.
    """
    after: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for a, b in graph.edges:
        after[a].append(b)
    done: list[str] = []
    closing: set[Edge] = set()
    state: dict[str, int] = {}
    for start in graph.named("Input"):
        stack: list[tuple[str, Iterator[str]]] = [(start, iter(after[start]))]
        state[start] = 1
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                state[name] = 2
                done.append(name)
            elif state.get(following) == 1:
                closing.add((name, following))
            elif following not in state:
                state[following] = 1
                stack.append((following, iter(after[following])))
    return done[::-1], closing
