"""The adapter ``snn.spiking``: any network that can be traced becomes a spiking one that can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from engram.backbone.errors import must
from engram.backbone.nets.folding import trace
from engram.backbone.nets.shapes import value_shapes
from engram.backbone.nets.traced import prepare_as
from engram.snn.conversion.preflight import SPIKING, adapted, traced
from engram.snn.graph.activations import QUANTISED, RELU, activation, is_gate
from engram.snn.graph.operations import Modules
from engram.snn.graph.rewriting import stop_overwriting
from engram.snn.neurons.quantised import QCFS
from engram.snn.simulation.network import SpikingBackbone
from engram.snn.training.levels import LevelSearch
from engram.snn.training.network import SpikingActivation, SpikingNetwork
from engram.snn.training.options import SpikingOptions
from engram.snn.training.qcfs import CALIBRATION_BATCH, CALIBRATION_IMAGES
from engram.snn.training.retraining import ConvertedNetwork


class AdaptedNetwork(SpikingNetwork):
    """A `SpikingNetwork` that knows what it was made from, until it is initialised or gets weights that were saved.

    Args:
        source: the network that was adapted, which `prepare` initialises as well.
        args: of `SpikingNetwork`.
    """

    def __init__(self, source: nn.Module, *args: Any) -> None:
        super().__init__(*args)
        self.__dict__["source"] = source  # beside the modules: none of its weights belongs to this network

    def prepare(self, images: Tensor) -> None:
        """Initialise a fresh network as its architecture wants it. images: [N, C, H, W] normalised."""
        prepare_as(self.__dict__.pop("source"), self.graph, images)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__.pop("source", None)
        super()._load_from_state_dict(*args, **kwargs)

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Set every layer's scale from the activations of the network as it was trained.

        The scale of a QCFS activation is its threshold, that of another one what quantises its output best at T levels.
        A network that was trained as a spiking one keeps its scales.

        Args:
            images: [N, C, H, W] normalised training images; the first few hundred are used.
        """
        source = self.__dict__.pop("source", None)
        if source is None:
            return
        analog = trace(source, composed=True)
        nodes = {str(node.target): node.name for node in self.graph.graph.nodes}
        scales = {nodes[name]: unit.scale for name, unit in self.neurons().items() if unit.scale is not None}
        searches = {name: LevelSearch(len(scale), self.steps) for name, scale in scales.items()}
        for searching in (False, True):
            for search in searches.values():
                search.searching = searching
            for part in images[:CALIBRATION_IMAGES].split(CALIBRATION_BATCH) if scales else ():
                _Watching(analog, searches).run(part)
        calls = [node for node in analog.graph.nodes if node.op == "call_module"]
        modules = {node.name: analog.get_submodule(str(node.target)) for node in calls}
        for name, scale in scales.items():
            module = modules.get(name)
            scale.copy_(module.theta() if isinstance(module, QCFS) else searches[name].best())


class _Watching(fx.Interpreter):
    """Runs an analog network and shows its activations, by node, to searches."""

    def __init__(self, graph: fx.GraphModule, searches: dict[str, LevelSearch]) -> None:
        super().__init__(graph)
        self.searches = searches

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.searches:
            self.searches[n.name].add(F.relu(value))
        return value


def spiking(backbone: nn.Module, options: SpikingOptions, saved: Mapping[str, Tensor] | None = None) -> SpikingNetwork:
    """A copy of a backbone with spiking neurons for its activations, every use of one with neurons of its own.

    A converted network keeps its weights, and its neurons become ones that can be trained.

    Raises:
        UserError: it cannot be traced, or has no activation.
    """
    if isinstance(backbone, SpikingBackbone):
        return ConvertedNetwork(backbone, options).train(backbone.training)
    net: Any = backbone
    graph, stages = traced(net, "snn.spiking")
    verdicts = adapted(graph, _becomes)
    _replace(graph, net.in_shape, options)
    shape, width, channels = net.in_shape, int(net.feature_dim), net.stage_channels
    made = AdaptedNetwork(net, graph, shape, width, channels, stages, options).train(net.training)
    made.verdicts = verdicts
    return made


def _replace(graph: fx.GraphModule, in_shape: tuple[int, int, int], options: SpikingOptions) -> None:
    """Put neurons in the place of activations, in place."""
    stop_overwriting(graph)
    channels = _channels(graph, in_shape)
    if not channels:
        raise must("a network for snn.spiking", "one with activations", "none", "Use --backbone vgg-tiny.")
    for node in list(graph.graph.nodes):
        if node.name not in channels:
            continue
        name = str(node.target) if node.op == "call_module" else node.name
        if node.op == "call_module" and isinstance(graph.get_submodule(name), SpikingActivation):
            name = node.name  # a module used before: every use has a state of its own
        graph.add_submodule(name, SpikingActivation(options, channels[node.name]))
        node.op, node.target = "call_module", name
        node.args, node.kwargs = (node.all_input_nodes[0],), {}
    graph.delete_all_unused_submodules()
    graph.recompile()


def _channels(graph: fx.GraphModule, in_shape: tuple[int, int, int]) -> dict[str, int]:
    """How many channels every activation has, by node name, as one blank image shows."""
    modules = dict(graph.named_modules())
    shapes = value_shapes(graph, in_shape)
    return {node.name: shape[1] for node, shape in shapes.items() if _becomes(node, modules) == SPIKING}


def _becomes(node: fx.Node, modules: Modules) -> str:
    """Neurons stand for every activation but one that scales another value: spikes would switch that on and off."""
    name = activation(node, modules)
    if not name:
        return ""
    gate = name not in (RELU, QUANTISED) and is_gate(node)
    return f"kept analog: {name} scales another value" if gate else SPIKING
