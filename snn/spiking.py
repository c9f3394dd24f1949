"""The spiking network a converted one is: the graph it came from, with neurons where its ReLUs were."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from snn.counting import Tally
from snn.neurons import IntegrateFire
from snn.timed import TimedNeurons, TimeFolded, empty_over_time

MEMORY = 2**28
"""Bytes one chunk of images may take in a simulation: within what large caches and small machines forgive."""

# What returns memory of its own, which neurons may overwrite with their spikes.
_FRESH = (nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


class Simulation(TimeFolded):
    """One run of a converted graph, in place where memory may be overwritten, counting spikes and operations.

    Args:
        tally: counts spikes and operations.
    """

    def __init__(
        self, graph: fx.GraphModule, steps: int, frames: bool, tally: Tally | None = None, keep: Collection[str] = ()
    ) -> None:
        super().__init__(graph, steps, frames, keep)
        self.tally = tally

    def fire(self, n: fx.Node, neurons: TimedNeurons, drive: Tensor) -> Tensor:
        assert isinstance(neurons, IntegrateFire)  # nothing else stands in a converted graph
        (source,) = n.all_input_nodes
        mine = source in self.timed and len(source.users) == 1 and self._is_fresh(source)
        spikes = neurons(drive, drive if mine else empty_over_time(self.env[source], drive))
        if self.tally is not None:
            self.tally.add(str(n.target), spikes)
        return spikes.mul_(neurons.threshold_of(spikes[0]))

    def _is_fresh(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.submodules[str(node.target)], _FRESH)
        return getattr(node.target, "__name__", "") == "add"


class SpikingBackbone(nn.Module):
    """A converted network under the `backbone.contract.Backbone` contract: one step of it is one step of spikes.

    Args:
        graph: a traced network, BatchNorm folded, whose ReLUs are `IntegrateFire`; spikes leave a neuron multiplied by
            its threshold, so that weights are those of the analog network.
        in_shape: (C, H, W) of one image.
        feature_dim, stage_channels: as in the analog network.
        stage_nodes: names of the graph's nodes that hold its stages.
        steps: simulation steps T for a still image, fed as a constant; frames [B, T, C, H, W] are one step each.
    """

    convertible: Literal["full", "hybrid", "no"] = "no"
    readout: Literal["mean", "last"] = "mean"

    def __init__(
        self,
        graph: fx.GraphModule,
        in_shape: tuple[int, int, int],
        feature_dim: int,
        stage_channels: tuple[int, ...],
        stage_nodes: Sequence[str],
        steps: int,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.in_shape, self.feature_dim, self.stage_channels = in_shape, feature_dim, stage_channels
        self.stage_nodes, self.steps = tuple(stage_nodes), steps
        self.bytes_per_step = peak_bytes(graph, in_shape)

    def neurons(self) -> dict[str, IntegrateFire]:
        """The neuron layers by name, in the order they run."""
        calls = [str(node.target) for node in self.graph.graph.nodes if node.op == "call_module"]
        found = {name: self.graph.get_submodule(name) for name in calls}
        return {name: module for name, module in found.items() if isinstance(module, IntegrateFire)}

    def chunk(self, steps: int) -> int:
        """How many images to simulate at once, within the memory set aside."""
        return max(1, MEMORY // (self.bytes_per_step * steps))

    def simulate(self, x: Tensor, tally: Tally | None = None) -> Tensor:
        """x: [B, C, H, W] normalised images, or [B, T, C, H, W] -> features [T, B, feature_dim], all images at once."""
        return self._run(x, tally)[0]

    def forward_steps(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [T, B, feature_dim], chunk by chunk."""
        steps = x.shape[1] if x.ndim == 5 else self.steps
        return torch.cat([self.simulate(part) for part in x.split(self.chunk(steps))], 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [B, feature_dim], the mean over steps."""
        return self.forward_steps(x).mean(0)

    def stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] -> the mean over steps of every stage, each [B, C_i, H_i, W_i]."""
        kept = self._run(x, None, self.stage_nodes)[1]
        return [kept[name] for name in self.stage_nodes]

    @torch.no_grad()
    def _run(
        self, x: Tensor, tally: Tally | None = None, keep: Collection[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        frames = x.ndim == 5
        steps = x.shape[1] if frames else self.steps
        flat = x.transpose(0, 1).flatten(0, 1) if frames else x
        run = Simulation(self.graph, steps, frames, tally, keep)
        features = run.run(flat.contiguous(memory_format=torch.channels_last))
        return features.unflatten(0, (steps, -1)), run.kept


def peak_bytes(graph: fx.GraphModule, in_shape: tuple[int, int, int]) -> int:
    """Bytes that the values alive at the same time take, at most, for one image and step."""
    device = next(graph.parameters()).device
    sizes: dict[fx.Node, int] = {}

    class Measure(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            sizes[n] = value.numel() * value.element_size() if isinstance(value, Tensor) and n.op != "get_attr" else 0
            return value

        def call_module(self, target: Any, args: tuple, kwargs: dict) -> Any:
            neurons = isinstance(self.submodules[str(target)], IntegrateFire)
            return args[0].clone() if neurons else super().call_module(target, args, kwargs)

    with torch.no_grad():
        Measure(graph).run(torch.zeros(1, *in_shape, device=device))
    order = list(graph.graph.nodes)
    last = {node: max((order.index(user) for user in node.users), default=i) for i, node in enumerate(order)}
    return max(sum(sizes[node] for node in order[: i + 1] if last[node] >= i) for i in range(len(order)))
