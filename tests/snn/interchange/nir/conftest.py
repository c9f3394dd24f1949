"""Random NIR graphs of every node that is read, whose numbers are small multiples of powers of two: sums are exact."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from engram.snn.interchange.nir.graph import KINDS, NEURONS, Graph, Node
from engram.snn.interchange.nir.semantics import Semantics
from engram.snn.interchange.nir.shapes import leaving

DT = 2.0**-10
SHAPE = (2, 6, 5)
INNER = [kind for kind in KINDS if kind not in ("Input", "Output")]
HOW = [
    Semantics(dt=DT, reset=reset, comparison=comparison, spikes=spikes, current=current)
    for reset, comparison, spikes, current in itertools.product(
        ("soft", "hard"), (">", ">="), ("one", "several"), ("new", "before")
    )
]


@pytest.fixture(scope="session")
def graphs() -> ModuleType:
    """This module."""
    return sys.modules[__name__]


def random_graph(seed: int, circle: bool | None = None) -> tuple[np.random.Generator, Graph]:
    """One of five random nodes; every third has a circle, every fourth is a graph in a graph."""
    draw = np.random.default_rng(seed)
    kinds = list(draw.choice(INNER, 5))
    return draw, chain(draw, kinds, seed % 3 == 0 if circle is None else circle, seed % 4 == 1)


def chain(draw: np.random.Generator, kinds: list[str], circle: bool = False, inner: bool = False) -> Graph:
    """A graph of nodes of these kinds, one behind another where they fit, from [C, H, W] or a row; with a circle of two
    nodes, or its second half as a graph inside."""
    shape = SHAPE
    nodes: dict[str, Node | Graph] = {"in": Node(kind="Input", settings={"shape": shape})}
    edges: list[tuple[str, str]] = []
    last = "in"

    def add(node: Node) -> None:
        nonlocal last, shape
        name = f"{len(nodes)}.{node.kind}"
        nodes[name] = node
        edges.append((last, name))
        last, shape = name, leaving(node, shape)

    for kind in kinds:
        for each in fitting(draw, kind, shape):
            add(each)
    if circle:
        if len(shape) > 1:
            add(Node(kind="Flatten", settings={"start_dim": 0, "end_dim": -1}))
        add(neuron(draw, "LIF", shape))
        back = Node(kind="Linear", arrays={"weight": small(draw, (shape[0], shape[0]))})
        nodes["back"] = back
        edges += [(last, "back"), ("back", last)]
    nodes["out"] = Node(kind="Output", settings={"shape": shape})
    edges.append((last, "out"))
    graph = Graph(nodes=nodes, edges=tuple(edges))
    return nested(graph) if inner else graph


def nested(graph: Graph) -> Graph:
    """The same graph with all nodes but its ends in a graph inside."""
    own = {key: node for key, node in graph.nodes.items() if key not in ("in", "out")}
    ends = {"first": graph.nodes["in"], "last": graph.nodes["out"]}
    renamed = {"in": "first", "out": "last"}
    edges = tuple((renamed.get(a, a), renamed.get(b, b)) for a, b in graph.edges)
    inside = Graph(nodes={**own, **ends}, edges=edges)
    nodes = {"in": graph.nodes["in"], "net": inside, "out": graph.nodes["out"]}
    return Graph(nodes=nodes, edges=(("in", "net"), ("net", "out")))


def fitting(draw: np.random.Generator, kind: str, shape: tuple[int, ...]) -> list[Node]:
    """Nodes of a kind for what arrives, with what it takes to make it fit in front; none where nothing does."""
    if kind in NEURONS:
        return [neuron(draw, kind, shape)]
    if kind in ("Affine", "Linear"):
        flat = [Node(kind="Flatten", settings={"start_dim": 0, "end_dim": -1})] if len(shape) > 1 else []
        weight = small(draw, (int(draw.integers(1, 6)), int(np.prod(shape))))
        bias = {"bias": small(draw, weight.shape[:1])} if kind == "Affine" else {}
        return [*flat, Node(kind=kind, arrays={"weight": weight, **bias})]
    if kind in ("Scale", "Threshold"):
        return [Node(kind=kind, arrays={kind.lower(): small(draw, shape)})]
    if kind == "Delay":
        return [Node(kind=kind, arrays={"delay": draw.integers(0, 4, shape) * DT})]
    if kind == "Flatten":
        return [Node(kind=kind, settings={"start_dim": 0, "end_dim": int(draw.integers(0, len(shape)))})]
    return WINDOWS[kind](draw, shape)


def convolution(draw: np.random.Generator, shape: tuple[int, ...]) -> list[Node]:
    axes = len(shape) - 1
    if axes not in (1, 2):
        return []
    groups = int(draw.choice([each for each in (1, 2) if shape[0] % each == 0]))
    kernel = [int(draw.integers(1, min(3, size) + 1)) for size in shape[1:]]
    weight = small(draw, (groups * int(draw.integers(1, 3)), shape[0] // groups, *kernel))
    same = draw.random() < 0.2
    stride, padding, dilation = draw.integers(1, 3, axes), draw.integers(0, 2, axes), np.ones(axes, int)
    settings = {
        "stride": (1,) * axes if same else tuple(stride.tolist()),
        "padding": "same" if same else tuple(padding.tolist()),
        "dilation": tuple(dilation.tolist()),
        "groups": groups,
    }
    if axes == 1:
        settings = {key: each[0] if isinstance(each, tuple) else each for key, each in settings.items()}
    arrays = {"weight": weight, "bias": small(draw, weight.shape[:1])}
    return [Node(kind=f"Conv{axes}d", arrays=arrays, settings=settings)]


def pooling(kind: str) -> Callable[[np.random.Generator, tuple[int, ...]], list[Node]]:
    def make(draw: np.random.Generator, shape: tuple[int, ...]) -> list[Node]:
        if len(shape) != 3 or min(shape[1:]) < 2:
            return []
        settings = {"kernel_size": (2, 2), "stride": (int(draw.integers(1, 3)), 2), "padding": (0, 1)}
        return [Node(kind=kind, settings=settings)]

    return make


WINDOWS = {
    "Conv1d": convolution,
    "Conv2d": convolution,
    "SumPool2d": pooling("SumPool2d"),
    "AvgPool2d": pooling("AvgPool2d"),
}


def neuron(draw: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Node:
    """One whose steps of `DT` have exact constants."""
    arrays = {name: values(draw, name, shape) for name in NEURONS[kind]}
    if kind in ("I", "IF"):
        arrays["r"] = arrays["r"] / DT  # r dt is near 1
    else:
        arrays["r"] = arrays["r"] * 2
    return Node(kind=kind, arrays=arrays)


def values(draw: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.startswith("tau"):
        return DT * 2.0 ** draw.integers(1, 3, shape)
    if name == "v_leak":
        return draw.integers(-1, 2, shape) / 4
    if name == "v_reset":
        return draw.integers(-1, 1, shape) / 4
    if name == "v_threshold":
        return draw.integers(1, 5, shape) / 4
    return draw.integers(1, 4, shape) / 2


def small(draw: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (draw.integers(-4, 6, shape) / 4).astype(np.float32)


def spikes(draw: np.random.Generator, steps: int, batch: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Events, [T, B, ...], some twice in a step."""
    return draw.integers(0, 3, (steps, batch, *shape)).astype(np.float64)
