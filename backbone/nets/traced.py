"""A network as the graph of its features: what adapters make of one whose activations are written as functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from engram.backbone.contract import Prepared
from engram.backbone.nets.blocks import FeedForward
from engram.backbone.nets.cutting import stage_graphs
from engram.backbone.nets.taps import Show


class TracedBackbone(FeedForward):
    """A traced network under the `engram.backbone.contract.Backbone` contract with one step.

    Args:
        graph: of `engram.backbone.nets.folding.trace`, perhaps changed since; its parameters keep the names they had.
        source: the network that was traced; it gives the shapes.
        stage_nodes: of `engram.backbone.nets.folding.stage_names`.
    """

    def __init__(self, graph: fx.GraphModule, source: Any, stage_nodes: Sequence[str]) -> None:
        super().__init__()
        self.graph, self.stage_nodes = graph, tuple(stage_nodes)
        self.__dict__["source"] = source  # beside the modules: none of its weights belongs to this network
        self.in_shape: tuple[int, int, int] = source.in_shape
        self.feature_dim: int = source.feature_dim
        self.stage_channels: tuple[int, ...] = source.stage_channels

    def features(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, feature_dim]."""
        return self.graph(x)

    def image_stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] -> the output of every stage, each [B, C_i, H_i, W_i]."""
        run = fx.Interpreter(self.graph, garbage_collect_values=False)
        run.run(x)
        values = {node.name: value for node, value in run.env.items()}
        return [values[name] for name in self.stage_nodes]

    def shown_features(self, x: Tensor, show: Show) -> Tensor:
        """x: [B, C, H, W] -> [B, feature_dim]; ``show`` has the output of every stage."""
        return Shown(self.graph, self.stage_nodes, show).run(x)

    def apply_stage(self, index: int, x: Tensor) -> Tensor:
        """x: the images, or the output of stage ``index - 1`` -> the output of stage ``index``, [B, C, H, W].

        Raises:
            UserError: more than one value leads from one stage to the next.
        """
        return self._run_part(index, x)

    def apply_tail(self, x: Tensor) -> Tensor:
        """x: the output of the last stage, [B, C, H, W] -> features [B, feature_dim]."""
        return self._run_part(len(self.stage_nodes), x)

    def _run_part(self, number: int, x: Tensor) -> Tensor:
        part = stage_graphs(self.graph.graph, self.stage_nodes)[number]
        return fx.Interpreter(self.graph, graph=part).run(x)

    def as_graph(self) -> fx.GraphModule:
        """The graph that is run."""
        return self.graph

    def prepare(self, images: Tensor) -> None:
        """Initialise a fresh network as its architecture wants it. images: [N, C, H, W] normalised."""
        prepare_as(self.__dict__.pop("source"), self.graph, images)


class Shown(fx.Interpreter):
    """Runs a graph and lets ``show`` have the output of every stage: what it returns goes on.

    Args:
        stage_nodes: names of the nodes that hold them, in the order of the stages.
    """

    def __init__(self, graph: fx.GraphModule, stage_nodes: Sequence[str], show: Show) -> None:
        super().__init__(graph)
        self.stage_nodes, self.show = stage_nodes, show

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        for index, name in enumerate(self.stage_nodes):
            value = self.show(index, value) if name == n.name else value
        return value


@torch.no_grad()
def prepare_as(source: nn.Module, graph: fx.GraphModule, images: Tensor) -> None:
    """Initialise a graph as the network it was traced from initialises itself, where that has a way of its own."""
    if isinstance(source, Prepared):
        source.prepare(images)
        ours = graph.state_dict()
        graph.load_state_dict({name: v for name, v in source.state_dict().items() if name in ours}, strict=False)
