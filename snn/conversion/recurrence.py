"""Recurrence around a network that becomes spiking: what of it is converted, and how it is watched meanwhile.

What becomes neurons is the network inside. What leads back stays what it was, computed at every step: a synaptic
current, the mean of what its source sent so far, sets the gain of a stage, or is added to it, one step later. So the
converted network comes to where the analog one stays after many steps, which need not be where it is after its own.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from engram.backbone.contract import Wrapping
from engram.backbone.errors import must
from engram.backbone.nets.cutting import stage_graphs
from engram.backbone.nets.folding import stage_names, trace
from engram.backbone.nets.tapped import tapped_steps
from engram.snn.conversion.methods import Conversion
from engram.snn.graph.segments import layer_nodes
from engram.snn.graph.timed import TimeFolded
from engram.snn.measures.neurobench import Workload
from engram.snn.simulation.counting import Tally
from engram.snn.simulation.network import SpikingBackbone


def inside(backbone: nn.Module) -> nn.Module:
    """The network whose activations become neurons: what recurrence is around, as it is after many steps, or itself."""
    return backbone.settled() if isinstance(backbone, Wrapping) else backbone


def require_plain(how: Conversion) -> None:
    """See that nothing is asked for that looks at a network without its recurrence.

    Raises:
        UserError: one line for each option.
    """
    if how.calibration not in ("auto", "none"):
        rule = "auto or none for a network with feedback, whose neurons are driven by what they send"
        raise must("--calibration", rule, how.calibration, "Leave it out, and simulate longer.")
    if how.threshold == "ltb":
        rule = "max, percentile or mse for a network with feedback, whose stages are looked at one by one"
        raise must("--threshold", rule, how.threshold, "Leave it out.")
    if how.pre_simulation:
        rule = "0 for a network with feedback, which would have to begin again"
        raise must("--pre-simulation", rule, how.pre_simulation, "Leave it out.")


def stage_places(backbone: nn.Module, names: Collection[str]) -> list[str]:
    """The nodes of a lowered graph that hold the stages of the network it was made from, in their order.

    Args:
        backbone: that network.
        names: of the nodes of the graph.
    """
    found, traced = [], {node.name: node for node in trace(backbone).graph.nodes}
    for name in stage_names(backbone):
        node = traced[name]
        while node.name not in names:  # folded or taken out: its value is now that of the layer before
            node = node.all_input_nodes[0]
        found.append(node.name)
    return found


class LastStep(nn.Module):
    """A lowered graph that is run stage by stage on what reaches each of them in the last step under recurrence.

    Args:
        whole: the analog network with its recurrence.
        graph: what was made of the network inside.
    """

    def __init__(self, whole: nn.Module, graph: fx.GraphModule) -> None:
        super().__init__()
        self.__dict__["whole"] = whole  # beside the modules: whoever watches those sees this graph's alone
        self.graph = graph
        inner = inside(whole)
        self.stage_nodes = stage_places(inner, {node.name for node in graph.graph.nodes})

    def get_submodule(self, target: str) -> nn.Module:
        """A module of the graph."""
        return self.graph.get_submodule(target)

    def inputs(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] -> what every stage and the tail get in the last step."""
        found: dict[int, Tensor] = {}

        def keep(site: Any, value: Tensor) -> Tensor:
            if site.stage is not None:
                found[site.stage] = value[-1].clone()
            return value

        tapped_steps(self.__dict__["whole"], x, keep)
        return [x, *(found[stage] for stage in sorted(found))]

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> features [B, feature_dim]."""
        value = x
        for part, given in zip(self._parts(), self.inputs(x), strict=True):
            value = fx.Interpreter(self.graph, graph=part).run(given)
        return value

    def activations(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """x: [B, C, H, W] -> the outputs of some layers, layer -> [B, C, ...]."""
        names, kept = layer_nodes(self.graph), dict[str, Tensor]()
        for part, given in zip(self._parts(), self.inputs(x), strict=True):
            run = TimeFolded(self.graph, 1, False, [names[layer] for layer in layers], part=part)
            run.run(given)
            kept |= run.kept
        return {layer: kept[names[layer]] for layer in layers}

    def _parts(self) -> list[fx.Graph]:
        return stage_graphs(self.graph.graph, self.stage_nodes)


class Recurrent:
    """A converted network with its recurrence, as whoever scores converted networks runs them.

    Args:
        net: recurrence around a `SpikingBackbone`.
    """

    def __init__(self, net: Any) -> None:
        self.net = net
        self.inner: SpikingBackbone = net.inner

    def simulate(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] normalised images, or [B, T, C, H, W] -> features [T, B, feature_dim]."""
        return self.net.forward_steps(x)

    def observe(self, x: Tensor, tally: Tally) -> tuple[Tensor, dict[str, Tensor]]:
        """As `simulate`, and the mean over steps of the spikes of every layer: layer -> [B, C, ...] in [0, 1]."""
        sent: dict[str, list[Tensor]] = {}
        watched = copy.copy(self.inner)  # the same layers
        made = self.net.around(watched)
        watched.watch = lambda name, value: sent.setdefault(name, []).append(value) if name in tally.fan_out else None
        features = made.forward_steps(x)
        rates = dict[str, Tensor]()
        for name, values in sent.items():
            steps = torch.cat(values)
            tally.add(name, steps)
            rates[name] = steps.float().mean(0)
        return features, {name: rates[name] for name in self.inner.neurons()}

    def link_macs(self) -> int:
        """Multiplications of what leads back, once a step but the first."""
        blank = next(self.inner.parameters()).new_zeros(1, 2, *self.inner.in_shape)
        links = {id(part) for link in self.net.links().values() for part in link.modules()}
        with torch.no_grad(), Workload(self.net) as work:
            self.net.forward_steps(blank)
        named = dict(self.net.named_modules())
        return sum(layer.dense for name, layer in work.layers.items() if id(named[name]) in links)


def dense_macs(net: nn.Module, in_shape: tuple[int, int, int]) -> int:
    """Multiplications of all convolutions and linear layers for one image, in all steps."""
    like = next(net.parameters())
    with torch.no_grad(), Workload(net) as work:
        net(like.new_zeros(1, *in_shape))
    return sum(layer.dense for layer in work.layers.values())
