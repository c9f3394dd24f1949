"""The adapter ``snn.readout``: a spiking network whose features are made of other things than rates."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, fx, nn

from engram.backbone.contract import Spiking
from engram.backbone.errors import must
from engram.backbone.nets.needs import need
from engram.snn.neurons.timed import TimedNeurons
from engram.snn.readout.codes import Membrane, SinceFirst
from engram.snn.readout.options import ReadoutOptions
from engram.snn.simulation.network import SpikingBackbone
from engram.snn.training.network import SpikingNetwork

SINCE_FIRST = "since_first"
"""The module of the graph, in front of a number."""


def readout(backbone: nn.Module, options: ReadoutOptions, saved: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A copy of a spiking network, trained or converted, whose features are made of its last neurons in another way.

    Raises:
        UserError: it is no spiking network of ours.
    """
    need(backbone, Spiking, "snn.readout")
    if not isinstance(backbone, SpikingNetwork | SpikingBackbone):
        got = type(backbone).__name__
        remedy = "Make one with snn.spiking or snn.convert."
        raise must("the network for snn.readout", "one whose neurons run on a graph of ours", got, remedy)
    made = copy.deepcopy(backbone)
    for node in last_neurons(made.graph):
        if options.code == "latency":
            _look_for_first(made.graph, node)
        elif options.code == "membrane":
            made.graph.set_submodule(str(node.target), Membrane(made.graph.get_submodule(str(node.target))))
    made.graph.recompile()
    return made


def last_neurons(graph: fx.GraphModule) -> list[fx.Node]:
    """The layers of neurons behind which there are no others."""
    leading: set[fx.Node] = set()
    found: list[fx.Node] = []
    for node in reversed(list(graph.graph.nodes)):
        neurons = node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), TimedNeurons)
        if neurons and node not in leading:
            found.insert(0, node)
        if neurons or node in leading:
            leading.update(node.all_input_nodes)
    return found


def _look_for_first(graph: fx.GraphModule, neurons: fx.Node) -> None:
    name = f"{SINCE_FIRST}_{sum(isinstance(module, SinceFirst) for module in graph.modules())}"
    graph.add_submodule(name, SinceFirst())
    with graph.graph.inserting_after(neurons):
        since = graph.graph.call_module(name, (neurons,))
    neurons.replace_all_uses_with(since, lambda user: user is not since)
