"""What a NIR graph is beside the values in its arrays, as text, from which a saved network is made again; no torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from engram.backbone.errors import must
from engram.snn.interchange.nir.graph import GRAPH, Graph, Node
from engram.snn.interchange.nir.reading import parsed, read
from engram.snn.interchange.nir.semantics import METADATA
from engram.snn.interchange.nir.shapes import LARGEST, REMEDY


def content(path: Path) -> str:
    """The nodes, edges and shapes of a NIR file, and engram's own metadata, as JSON.

    Raises:
        UserError: as `engram.snn.interchange.nir.reading.read`.
    """
    return as_text(read(path))


def as_text(graph: Graph) -> str:
    """The structure of a graph."""
    return json.dumps(_graph(graph))


def _graph(graph: Graph) -> dict[str, Any]:
    nodes = {name: _node(node) if isinstance(node, Node) else _graph(node) for name, node in graph.nodes.items()}
    said = {METADATA: graph.metadata[METADATA]} if METADATA in graph.metadata else {}
    return {"type": GRAPH, "nodes": nodes, "edges": graph.edges, "metadata": said}


def _node(node: Node) -> dict[str, Any]:
    return {
        "type": node.kind,
        "settings": dict(node.settings),
        "shapes": {name: value.shape for name, value in node.arrays.items()},
        "start": None if node.start is None else node.start.shape,
        "refractory": node.refractory,
    }


def from_text(text: str) -> Graph:
    """A graph of that structure whose arrays hold ones.

    Raises:
        UserError: the text is no such structure.
    """
    name = "the structure of a saved NIR network"
    try:
        tree = _tree(json.loads(text), [LARGEST])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise must(name, "one that engram wrote", f"{type(error).__name__}: {error}", REMEDY) from None
    return parsed({"node": tree}, name)


def _tree(said: dict[str, Any], left: list[int]) -> dict[str, Any]:
    """What a file of that structure would hold; ``left`` is how many values it still may have."""
    if said["type"] == GRAPH:
        return {**said, "nodes": {name: _tree(node, left) for name, node in said["nodes"].items()}}

    def ones(shape: list[int]) -> np.ndarray:
        left[0] -= math.prod(map(int, shape))
        if left[0] < 0:
            raise ValueError(f"more than {LARGEST} values")
        return np.ones(tuple(map(int, shape)), np.float32)

    arrays = {name: ones(shape) for name, shape in said["shapes"].items()}
    metadata: dict[str, Any] = {"refractory": np.array(int(said["refractory"]))} if said["refractory"] else {}
    if said["start"] is not None:
        metadata["start"] = ones(said["start"])
    return {"type": said["type"], **said["settings"], **arrays, "metadata": metadata}
