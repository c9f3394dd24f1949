"""A network as the graph of its features: what adapters make of one whose activations are written as functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from engram.backbone.nets.blocks import FeedForward


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
        self.convertible: Literal["full", "hybrid", "no"] = source.convertible

    def features(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, feature_dim]."""
        return self.graph(x)

    def image_stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] -> the output of every stage, each [B, C_i, H_i, W_i]."""
        run = fx.Interpreter(self.graph, garbage_collect_values=False)
        run.run(x)
        values = {node.name: value for node, value in run.env.items()}
        return [values[name] for name in self.stage_nodes]

    def prepare(self, images: Tensor) -> None:
        """Initialise a fresh network as its architecture wants it. images: [N, C, H, W] normalised."""
        prepare_as(self.__dict__.pop("source"), self.graph, images)


@torch.no_grad()
def prepare_as(source: nn.Module, graph: fx.GraphModule, images: Tensor) -> None:
    """Initialise a graph as the network it was traced from initialises itself, where that has a way of its own."""
    prepare: Any = getattr(source, "prepare", None)
    if prepare is not None:
        prepare(images)
        ours = graph.state_dict()
        graph.load_state_dict({name: v for name, v in source.state_dict().items() if name in ours}, strict=False)
