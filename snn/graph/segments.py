"""Parts of a spiking graph: everything up to one neuron layer, and what lies between it and the layers before."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from engram.snn.neurons.timed import TimedNeurons


def layer_nodes(graph: fx.GraphModule) -> dict[str, str]:
    """Module name -> node name of all calls of modules; each activation is called once in a lowered graph."""
    return {str(node.target): node.name for node in graph.graph.nodes if node.op == "call_module"}


def prefix(graph: fx.GraphModule, layer: str) -> fx.GraphModule:
    """The part of a graph that ends with the output of ``layer``, on the same modules."""
    return _cut(graph, lambda part: _call(part, layer))


def ending(graph: fx.GraphModule, nodes: Sequence[str]) -> fx.GraphModule:
    """The part of a graph that gives the values of some nodes, as a tuple, on the same modules."""
    return _cut(graph, lambda part: tuple(next(node for node in part.nodes if node.name == name) for name in nodes))


def output_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """The nodes whose values a graph gives."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    return list(output.args[0])  # type: ignore[arg-type]


def _cut(graph: fx.GraphModule, wanted: Callable[[fx.Graph], Any]) -> fx.GraphModule:
    part = copy.deepcopy(graph.graph)
    (output,) = (node for node in part.nodes if node.op == "output")
    output.args = (wanted(part),)
    ended = fx.GraphModule(graph, part)
    ended.graph.eliminate_dead_code()
    ended.recompile()
    return ended


def segment(graph: fx.GraphModule, layer: str) -> tuple[fx.GraphModule, list[str]]:
    """What turns the spikes of earlier neurons into the drive of ``layer``, on the same modules.

    It is linear, but for max pools, so that the mean of the spikes gives the mean of the drive.

    Returns: a graph from the outputs of those neurons (or the image) to the drive, and the names of their nodes in
    ``graph``, in the order of its inputs.
    """
    (drive,) = _call(graph.graph, layer).all_input_nodes
    inside: set[fx.Node] = set()
    inputs: set[fx.Node] = set()
    waiting = [drive]
    while waiting:
        node = waiting.pop()
        spikes = node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), TimedNeurons)
        if spikes or node.op == "placeholder":
            inputs.add(node)
        elif node not in inside:
            inside.add(node)
            waiting += node.all_input_nodes
    part, made = fx.Graph(), dict[fx.Node, fx.Node]()
    names = []
    for node in graph.graph.nodes:
        if node in inputs:
            made[node] = part.placeholder(node.name)
            names.append(node.name)
        elif node in inside:
            made[node] = part.node_copy(node, lambda source: made[source])
    part.output(made[drive])
    return fx.GraphModule(graph, part), names


def _call(graph: fx.Graph, layer: str) -> fx.Node:
    return next(node for node in graph.nodes if node.op == "call_module" and node.target == layer)
