"""A traced network cut at its stages, so that each can be run by itself on the output of the one before."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from torch import fx

from engram.backbone.errors import must

_CUT: WeakKeyDictionary[fx.Graph, dict[tuple[str, ...], list[fx.Graph]]] = WeakKeyDictionary()
"""What was cut already, by the graph and where."""


def stage_graphs(graph: fx.Graph, stage_nodes: Sequence[str]) -> list[fx.Graph]:
    """Graphs of one input each: of every stage, and of the tail behind the last of them.

    Each is run by ``fx.Interpreter(module, graph=part)`` on the modules of the network. How many images there are may
    be asked anywhere; every other value that depends on the images has to come through the stages. A graph is cut once;
    who changes it changes a copy.

    Args:
        graph: of a network with one input.
        stage_nodes: names of its nodes that hold the stages, in the order of the stages.

    Returns: ``len(stage_nodes) + 1`` graphs.

    Raises:
        UserError: a value of one stage is used behind the next one too.
    """
    cuts = _CUT.setdefault(graph, {})
    places = tuple(stage_nodes)
    if places not in cuts:
        cuts[places] = _cut(graph, places)
    return cuts[places]


def _cut(graph: fx.Graph, places: tuple[str, ...]) -> list[fx.Graph]:
    nodes = {node.name: node for node in graph.nodes}
    (image,) = (node for node in graph.nodes if node.op == "placeholder")
    (output,) = (node for node in graph.nodes if node.op == "output")
    ends: list[Any] = [*(nodes[name] for name in places), output.args[0]]
    moving = _made_of(graph, image)
    parts, before = list[fx.Graph](), set[fx.Node]()
    for number, (source, end) in enumerate(zip([image, *ends], ends, strict=False)):
        part = _Part(source, moving, before)
        parts.append(part.ending_with(end))
        if part.crossing:
            what = "the tail" if number == len(places) else f"stage {number + 1}"
            got = ", ".join(node.name for node in part.crossing)
            raise must(
                f"what {what} of this network is computed from",
                f"the output of stage {number} alone, so that it can be run by itself",
                f"{got} as well",
                "Let stages(x) end where a single value goes on, or use another --backbone.",
            )
        before |= {*part.made, source} & moving
    return parts


def _made_of(graph: fx.Graph, image: fx.Node) -> set[fx.Node]:
    """The nodes whose values depend on the images."""
    found = {image}
    for node in graph.nodes:
        if any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


class _Part:
    """A new graph from one value to another.

    Args:
        source: the node whose value is the input.
        moving: nodes that depend on the images.
        before: those of them that belong to earlier parts.

    Attributes:
        made: the nodes that were taken over.
        crossing: values of earlier parts that this one would need besides.
    """

    def __init__(self, source: fx.Node, moving: set[fx.Node], before: set[fx.Node]) -> None:
        self.source, self.moving, self.before = source, moving, before
        self.graph = fx.Graph()
        self.input = self.graph.placeholder(source.name)
        self.made = {source: self.input}
        self.crossing: list[fx.Node] = []

    def ending_with(self, end: fx.Node) -> fx.Graph:
        """The graph whose value is that of a node."""
        wanted, waiting = set[fx.Node](), [end]
        while waiting:
            node = waiting.pop()
            if node in wanted or node in self.made:
                continue
            wanted.add(node)
            if not self._comes_from_elsewhere(node):
                waiting += node.all_input_nodes
        for node in end.graph.nodes:
            if node in wanted:
                self._take(node)
        self.graph.output(self.made[end])
        return self.graph

    def _comes_from_elsewhere(self, node: fx.Node) -> bool:
        return (node in self.before) or (node.op == "placeholder") or _counts_images(node)

    def _take(self, node: fx.Node) -> None:
        if _counts_images(node):
            self.made[node] = self.graph.call_method("size", (self.input, 0))
            return
        if self._comes_from_elsewhere(node) and node in self.moving:
            self.crossing.append(node)
            self.made[node] = self.input  # never run
            return
        self.made[node] = self.graph.node_copy(node, lambda each: self.made[each])


def _counts_images(node: fx.Node) -> bool:
    """Whether a node asks how many images there are: ``x.size(0)``, ``x.shape[0]``."""
    if node.op == "call_method":
        return node.target == "size" and node.args[1:] == (0,)
    if node.op != "call_function" or node.target is not operator.getitem or node.args[1] != 0:
        return False
    shape = node.args[0]
    return isinstance(shape, fx.Node) and (
        (shape.target is getattr and shape.args[1] == "shape")
        or (shape.op == "call_method" and shape.target == "size" and len(shape.args) == 1)
    )
