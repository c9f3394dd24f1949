"""Our graph as one of the nir library, and as a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engram.backbone.errors import UserError
from engram.snn.interchange.nir.graph import Graph, Node
from engram.snn.interchange.nir.shapes import planned

if TYPE_CHECKING:
    import nir


def to_nir(graph: Graph) -> nir.NIRGraph:
    """The same graph in the nir library's classes.

    Their own shapes are not inferred: the library takes every kernel for a square.

    Raises:
        UserError: the library is not installed.
    """
    try:
        import nir
    except ImportError:
        raise UserError("nir must be installed to write NIR files; got none. pip install 'engram[snn]'") from None
    nodes: dict[str, Any] = {}
    for name, node in graph.nodes.items():
        nodes[name] = _node(nir, node) if isinstance(node, Node) else to_nir(node)
    return nir.NIRGraph(nodes, list(graph.edges), dict(graph.metadata), type_check=False)


def write(graph: Graph, path: Path) -> None:
    """Write a graph as the nir library does; a file that is there is replaced when the new one is whole.

    Raises:
        UserError: the library is not installed, or a node does not fit what it gets.
    """
    planned(graph)
    made = to_nir(graph)
    import nir

    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        nir.write(beside, made)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _node(nir: Any, node: Node) -> Any:
    fields = {**node.arrays, **{name: _setting(value) for name, value in node.settings.items()}}
    if node.kind == "Input":
        return nir.Input({"input": np.array(fields["shape"])}, metadata=dict(node.metadata))
    if node.kind == "Output":
        return nir.Output({"output": np.array(fields["shape"])}, metadata=dict(node.metadata))
    if node.kind == "Flatten":
        fields["input_type"] = {"input": fields.get("input_type")}
    elif node.kind in ("Conv1d", "Conv2d"):
        fields.setdefault("input_shape", None)
    return getattr(nir, node.kind)(**fields, metadata=dict(node.metadata))


def _setting(value: Any) -> Any:
    return np.array(value) if isinstance(value, tuple) else value


def with_shapes(graph: Graph) -> Graph:
    """The same graph, in which every node says the shape that it takes where its kind has a field for it.

    The nir library cannot write a convolution or a Flatten that does not.
    """
    plan = planned(graph)

    def filled(part: Graph, where: str) -> Graph:
        nodes: dict[str, Node | Graph] = {}
        for name, node in part.nodes.items():
            key = f"{where}{name}"
            nodes[name] = filled(node, f"{key}.") if isinstance(node, Graph) else _filled(node, plan.taken[key])
        return Graph(nodes=nodes, edges=part.edges, metadata=part.metadata)

    return filled(graph, "")


def _filled(node: Node, taken: tuple[int, ...]) -> Node:
    said: Mapping[str, Any] = {
        "Flatten": {"input_type": taken},
        "Conv1d": {"input_shape": taken[-1]},
        "Conv2d": {"input_shape": taken[1:]},
    }.get(node.kind, {})
    settings = {**node.settings, **said}
    return Node(kind=node.kind, arrays=node.arrays, settings=settings, metadata=node.metadata)
