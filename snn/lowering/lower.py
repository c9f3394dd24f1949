"""From a trained classifier to populations and affine connections."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from engram.backbone.contract import Wrapping
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.folding import Untraceable, bake, fold_batchnorm, trace
from engram.backbone.nets.heads import linear_form
from engram.backbone.nets.shapes import value_shapes
from engram.snn.graph.rewriting import stop_overwriting
from engram.snn.lowering.network import INPUT, Cells, Connection, Lowered, Population
from engram.snn.lowering.operations import Operations
from engram.snn.lowering.refusals import Refusal, refused
from engram.snn.lowering.values import Term, Value, every_channel
from engram.snn.neurons.timed import TimedNeurons
from engram.snn.simulation.network import SpikingBackbone
from engram.snn.training.network import SpikingNetwork

HEAD = "head"


def lower(model: Classifier, frames: bool = False) -> Lowered:
    """A classifier as populations and connections, which computes the same at every step (`running.run`).

    Networks of ``snn.train`` (`SpikingNetwork`) and of ``snn.convert`` (`SpikingBackbone`) can be said so, and those of
    layers and ReLUs. BatchNorm is folded; the normalisation of images is the first layer behind the input; what a spike
    stands for is in the weights behind it, so that every spike is 1; a sum is two connections; and the head's outputs
    are the last population, an integrator. A max pool of spikes is a population of its own, whose neurons fire where
    any of their window does.

    Args:
        model: left as it is.
        frames: images will be sequences.

    Raises:
        UserError: something cannot be said; all of it, with reasons and remedies.
    """
    found, refusals = lowered(model, frames)
    if refusals or found is None:
        raise refused(refusals)
    return found


def refusals(model: Classifier) -> tuple[Refusal, ...]:
    """What of a classifier cannot be said as populations and connections; empty where `lower` succeeds."""
    return lowered(model, frames=False)[1]


@torch.no_grad()
def lowered(model: Classifier, frames: bool) -> tuple[Lowered | None, tuple[Refusal, ...]]:
    """The network, or everything that stands against it."""
    net: Any = model.backbone
    if isinstance(net, Wrapping):
        return None, (*_of_head(model.head), *_of_links(net))
    early = [*_of_head(model.head), *_of_network(net, frames)]
    try:
        graph = _graph(net)
    except Untraceable as error:
        early.append(Refusal("features", type(net).__name__, f"it has no graph: {error}", "Use --backbone lenet5"))
        return None, tuple(early)
    work = _Lowering(graph, model)
    features = work.run()
    head = linear_form(model.head)
    found = (*early, *work.refusals)
    if found or head is None or features is None:
        return None, found
    drive = features.through(head, (head.out_features,))
    read = Population(
        name=work.free(HEAD), shape=drive.shape, cells=Cells(kind="integrator"), connections=drive.connections()
    )
    made = Lowered(
        in_shape=net.in_shape,
        populations=(*work.populations, read),
        steps=net.steps,
        delay=getattr(net, "delay", 0),
        readout=net.readout,
        frames=frames,
    )
    return made, ()


def _of_head(head: nn.Module) -> list[Refusal]:
    if linear_form(head) is not None:
        return []
    return [Refusal(HEAD, type(head).__name__, "the read-out has to be linear", "Train with --head linear")]


def _of_links(net: Wrapping) -> list[Refusal]:
    reason = (
        "it computes with means of what was sent, and multiplies or shifts what stages send: no neurons of a chip do"
    )
    remedy = "Train a network without feedback, or score this one as a spiking one: snn.convert"
    return [Refusal(name, type(link).__name__, reason, remedy) for name, link in net.links().items()]


def _of_network(net: Any, frames: bool) -> list[Refusal]:
    name = type(net).__name__
    if isinstance(net, SpikingBackbone) and frames and net.frames == "anew":
        reason = "its neurons begin anew at every frame of a recording"
        return [Refusal("backbone", name, reason, "Train one on recordings with snn.train")]
    if isinstance(net, SpikingBackbone) and net.pre_simulation:
        reason = "which of its neurons are silent is found anew for every image"
        return [Refusal("backbone", name, reason, "Convert it without --pre-simulation")]
    if not isinstance(net, SpikingBackbone | SpikingNetwork) and net.steps > 1:
        reason = "its steps are no steps of spikes"
        return [Refusal("backbone", name, reason, "Train one with snn.train, or convert one with snn.convert")]
    return []


def _graph(net: nn.Module) -> fx.GraphModule:
    """Layers, neurons and ReLUs, none of them in place, BatchNorm folded where that is exact."""
    known = isinstance(net, SpikingBackbone | SpikingNetwork)
    graph = bake(net.as_graph()) if known else trace(net)
    assert isinstance(graph, fx.GraphModule)
    stop_overwriting(graph)
    return fold_batchnorm(graph)


class _Lowering:
    """Walks a graph: every node's value as a sum of terms, every layer of neurons as a population.

    Attributes:
        populations: those found so far, in running order.
        refusals: what cannot be said.
    """

    def __init__(self, graph: fx.GraphModule, model: Classifier) -> None:
        self.graph, self.model = graph, model
        self.shapes = value_shapes(graph, model.backbone.in_shape, (TimedNeurons,))  # type: ignore[arg-type]
        self.populations: list[Population] = []
        self.refusals: list[Refusal] = []
        self.values: dict[fx.Node, Value] = {}
        self.operations = Operations(graph, self.shapes)

    def run(self) -> Value | None:
        """The features; None where they are no value of images."""
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._image(node)
            elif node.op == "output":
                (source,) = node.all_input_nodes
                return self.values.get(source)
            elif node in self.shapes and any(source in self.values for source in node.all_input_nodes):
                self.values[node] = self._value(node)
        return None

    def free(self, name: str) -> str:
        """A name that no population has yet."""
        taken = {INPUT, *(each.name for each in self.populations)}
        while name in taken:
            name += "_"
        return name

    def _image(self, node: fx.Node) -> Value:
        """The image as the network takes it: normalised."""
        normalise, shape = self.model.normalise, tuple(self.shapes[node][1:])
        layer = every_channel(1 / normalise.std, -normalise.mean / normalise.std, len(shape))
        return Value(shape, (Term(INPUT, (layer,)),))

    def _value(self, node: fx.Node) -> Value:
        found = self.operations.value(node, self.values)
        if isinstance(found, Value):
            return found
        if isinstance(found, Refusal):
            self.refusals.append(found)
            return self._unknown(node)
        cells, drive = found
        name = self.free(str(node.target) if node.op == "call_module" else node.name)
        shape = tuple(self.shapes[node][1:])
        back = (Connection(source=name, layers=nn.Sequential(), delay=1),) if cells.stay else ()
        connections = (*drive.connections(), *back)
        self.populations.append(Population(name=name, shape=shape, cells=cells.cells, connections=connections))
        sent = Value(shape, (Term(name),))
        return sent if cells.sends is None else sent.times(cells.sends)

    def _unknown(self, node: fx.Node) -> Value:
        """Something of the right shape, so that all that follows is looked at as well."""
        return Value(tuple(self.shapes[node][1:]), (Term(INPUT),))
