"""A NIR file, or a graph of the nir library, as our graph: node types from a list, fields checked, shapes checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engram.backbone.errors import UserError, must
from engram.snn.interchange.nir.graph import ARRAYS, GRAPH, KINDS, NEURONS, SETTINGS, Edge, Graph, Node, Setting
from engram.snn.interchange.nir.shapes import REMEDY, planned
from engram.snn.interchange.screening import screened

if TYPE_CHECKING:
    import nir

_OPTIONAL: Mapping[str, float] = {"v_reset": 0.0, "w_in": 1.0}
"""Arrays that older files leave out: the value of every neuron, in the shape of the threshold or the leak."""
_MAY_LACK = ("input_shape", "input_type")
_DEFAULTS: Mapping[str, int] = {"start_dim": 1, "end_dim": -1}
_POSITIVE = ("tau", "tau_syn", "tau_mem")
_MOST = 2**20
"""The largest whole number in a setting."""


def read(path: Path) -> Graph:
    """The graph in a file that the nir library, or a tool that uses it, wrote.

    Raises:
        UserError: the file is refused (`engram.snn.interchange.screening.screened`), or holds no NIR graph whose parts
            fit together.
    """
    return parsed(screened(path, REMEDY), str(path))


def parsed(tree: Mapping[str, Any], name: str) -> Graph:
    """The graph in what a file holds. ``name`` is what errors call it.

    Raises:
        UserError: as `read`.
    """
    node = tree.get("node")
    if not isinstance(node, Mapping) or node.get("type") != GRAPH:
        raise must(name, f"a NIR file, with a {GRAPH} under 'node'", ", ".join(tree) or "nothing", REMEDY)
    graph = _graph(node, name, "")
    planned(graph, name)
    return graph


def from_nir(graph: nir.NIRGraph, name: str = "a NIR graph") -> Graph:
    """A graph of the nir library as ours.

    Raises:
        UserError: as `read`.
    """
    return parsed({"node": graph.to_dict()}, name)


def _graph(tree: Mapping[str, Any], name: str, where: str) -> Graph:
    found = tree.get("nodes")
    if not isinstance(found, Mapping) or not found:
        raise must(f"the graph {where or 'of'} {name}".replace("of of", "of"), "of nodes", "none", REMEDY)
    nodes: dict[str, Node | Graph] = {}
    for key, each in found.items():
        inner = f"{where}.{key}".lstrip(".")
        kind = _text(each.get("type")) if isinstance(each, Mapping) else None
        if kind == GRAPH:
            nodes[key] = _graph(each, name, inner)
        elif kind in KINDS:
            nodes[key] = _node(each, kind, f"node {inner!r} of {name}")
        else:
            rule = f"of a type that is read here ({', '.join(KINDS)}, {GRAPH})"
            raise must(f"node {inner!r} of {name}", rule, kind, REMEDY)
    edges = _edges(tree.get("edges"), nodes, f"{where} of {name}".lstrip(" ") if where else name)
    metadata = tree.get("metadata", {})
    return _with_ends(Graph(nodes=nodes, edges=edges, metadata=_plain(metadata)), where or "the graph", name)


def _with_ends(graph: Graph, where: str, name: str) -> Graph:
    """The same graph; where it has no input or no output and one node begins or ends it, with one of its shape."""
    nodes, edges = dict(graph.nodes), list(graph.edges)
    for kind, place in (("Input", 1), ("Output", 0)):
        given = graph.named(kind)
        bare = [key for key in nodes if key not in {edge[place] for edge in edges}]
        if not given and len(bare) == 1 and isinstance(node := nodes[bare[0]], Node):
            shape = _own_shape(node, kind)
            if shape is not None:
                nodes[kind.lower()] = Node(kind=kind, settings={"shape": shape})
                edges.append((kind.lower(), bare[0]) if place else (bare[0], kind.lower()))
                continue
        if len(given) != 1:
            raise must(f"{where} of {name}", f"one with one {kind}", f"{len(given)}", REMEDY)
    return Graph(nodes=nodes, edges=tuple(edges), metadata=graph.metadata)


def _own_shape(node: Node, kind: str) -> tuple[int, ...] | None:
    """What a node takes (Input) or sends (Output), where its arrays say so."""
    if node.kind in NEURONS:
        return node.arrays["r"].shape
    if node.kind in ("Affine", "Linear"):
        return node.arrays["weight"].shape[1:] if kind == "Input" else node.arrays["weight"].shape[:1]
    return None


def _edges(found: Any, nodes: Mapping[str, Any], where: str) -> tuple[Edge, ...]:
    pairs: Any = [] if found is None else found.tolist() if isinstance(found, np.ndarray) else found
    if not isinstance(pairs, Sequence) or isinstance(pairs, str):
        raise must(f"the edges of {where}", "pairs of names", f"{pairs!r}"[:60], REMEDY)
    edges: list[Edge] = []
    for pair in pairs:
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise must(f"an edge of {where}", "two names of nodes", f"{pair!r}"[:60], REMEDY)
        a, b = (_text(each) or "" for each in pair)
        if lost := [each for each in (a, b) if each not in nodes]:
            raise must(f"an edge of {where}", "between nodes that are there", f"{lost[0]!r}", REMEDY)
        edges.append((a, b))
    return tuple(dict.fromkeys(edges))


def _node(tree: Mapping[str, Any], kind: str, what: str) -> Node:
    arrays, settings = ARRAYS.get(kind, ()), SETTINGS.get(kind, ())
    unknown = [key for key in tree if key not in (*arrays, *settings, "type", "metadata", "input_type", "output_type")]
    lost = [key for key in arrays if key not in tree and key not in _OPTIONAL]
    lost += [key for key in settings if key not in tree and key not in (*_MAY_LACK, *_DEFAULTS)]
    if unknown or lost:
        got = " and ".join(
            [f"without {', '.join(lost)}"] * bool(lost) + [f"with {', '.join(map(str, unknown[:5]))}"] * bool(unknown)
        )
        raise must(what, f"a {kind} with {', '.join((*arrays, *settings)) or 'no fields'}", got, REMEDY)
    found = {key: _array(tree[key], f"{key} of {what}") for key in arrays if tree.get(key) is not None}
    for key in arrays:
        if key not in found and key in _OPTIONAL:
            found[key] = np.full_like(found.get("v_threshold", found["r"]), _OPTIONAL[key])
        elif key not in found:
            raise must(f"{key} of {what}", "numbers", "nothing", REMEDY)
    for key in _POSITIVE:
        if key in found and not (found[key] > 0).all():
            raise must(f"{key} of {what}", "above 0 (seconds)", f"{found[key].min()}", REMEDY)
    if kind == "Delay" and not (found["delay"] >= 0).all():
        raise must(f"delay of {what}", "at least 0 (seconds)", f"{found['delay'].min()}", REMEDY)
    given = {key: _setting(key, tree[key], f"{key} of {what}") for key in settings if tree.get(key) is not None}
    given |= {key: _DEFAULTS[key] for key in settings if key in _DEFAULTS and key not in given}
    return Node(kind=kind, arrays=found, settings=given, metadata=_plain(tree.get("metadata", {})))


def _array(value: Any, what: str) -> np.ndarray:
    try:
        found = np.asarray(value)
    except (TypeError, ValueError):
        found = np.asarray(None)
    if found.dtype.kind not in "biuf" or not found.size:
        raise must(what, "numbers", f"{type(value).__name__} of {found.dtype}", REMEDY)
    if not np.isfinite(found).all():
        raise must(what, "finite", "infinite ones, or ones that are no number", REMEDY)
    return found if found.dtype in (np.float32, np.float64) else found.astype(np.float64)


def _setting(key: str, value: Any, what: str) -> Setting:
    if key == "padding" and (word := _text(value)) is not None:
        if word in ("same", "valid"):
            return word
        raise must(what, "whole numbers, 'same' or 'valid'", word, REMEDY)
    if isinstance(value, Mapping):  # the nir library's own name for a shape
        value = value.get("input")
    try:
        found = np.asarray(value)
        numbers = [] if found.dtype.kind not in "biuf" else found.reshape(-1).tolist()
    except (TypeError, ValueError):
        found, numbers = np.asarray(None), []
    least = 0 if key == "padding" else -64 if key in _DEFAULTS else 1
    if not 1 <= len(numbers) <= 8 or any(
        not float(each).is_integer() or not least <= each <= _MOST for each in numbers
    ):
        rule = f"whole numbers of at least {least} and at most {_MOST}"
        raise must(what, rule, f"{value!r}"[:60], REMEDY)
    whole = tuple(map(int, numbers))
    one = found.ndim == 0 and key not in ("shape", "input_type")
    return whole[0] if one or key in ("groups", "start_dim", "end_dim") else whole


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else None


def _plain(value: Any) -> Any:
    """Metadata as texts, arrays and groups of them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return _text(value) if _text(value) is not None else np.asarray(value)


def require_nir() -> None:
    """Refuse where the nir library is not installed.

    Raises:
        UserError: saying how to install it.
    """
    try:
        import nir  # noqa: F401
    except ImportError:
        raise UserError("nir must be installed to write NIR files. pip install 'engram[snn]'") from None
