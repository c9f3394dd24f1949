"""A tap on the run of a graph over time: which values are at which sites, and in which units they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from engram.backbone.contract import Site, Tap
from engram.backbone.nets.taps import FEATURES, is_activation, passed, stage_site


@dataclass(frozen=True)
class GraphTap:
    """A tap on one run of a graph.

    Attributes:
        tap: sees the values of some steps.
        stage_nodes: names of the nodes that hold the stages, in their order.
        units: of every stage, [C] or [1]: what 1 in its node stands for; none where nodes hold what stages are.
        step: the number of the run's first step.
        nodes: let it see every other value too, as ``%NODE``.
    """

    tap: Tap
    stage_nodes: Sequence[str]
    units: Sequence[Tensor] = ()
    step: int = 0
    nodes: bool = False

    def neurons(self, name: str, spikes: Tensor) -> Tensor:
        """spikes: [T, B, C, ...] of the layer called ``name`` in the graph -> what it sends."""
        return passed(self.tap, Site(None, self.step, f"graph.{name}"), spikes)

    def features(self, value: Tensor) -> Tensor:
        """value: [T, B, feature_dim] -> the same shape."""
        return passed(self.tap, Site(None, self.step, FEATURES), value)

    def sees(self, n: fx.Node, module: nn.Module | None) -> bool:
        """Whether what a node gives is at a site, other than that of a layer of neurons."""
        activation = module is not None and is_activation(module)
        return activation or n.name in self.stage_nodes or (self.nodes and n.op != "output")

    def value(self, n: fx.Node, module: nn.Module | None, value: Tensor) -> Tensor:
        """value: [T, B, C, ...] of a node -> the same shape."""
        if module is not None and is_activation(module):
            value = passed(self.tap, Site(None, self.step, f"graph.{n.target}"), value)
        if self.nodes:
            value = passed(self.tap, Site(None, self.step, f"%{n.name}"), value)
        for index, name in enumerate(self.stage_nodes):
            value = self._stage(index, value) if name == n.name else value
        return value

    def _stage(self, index: int, value: Tensor) -> Tensor:
        site = stage_site(index, self.step)
        if not self.units:
            return passed(self.tap, site, value)
        unit = self.units[index]
        unit = unit.view(-1, *[1] * (value.ndim - 3))
        shown = value * unit
        found = passed(self.tap, site, shown)
        return value if unchanged(found, shown) else found / unit


def unchanged(found: Tensor, shown: Tensor) -> bool:
    """Whether a tap has returned what it saw; a copy of it counts where no gradient needs to know."""
    if found is shown:
        return True
    return not found.requires_grad and not shown.requires_grad and torch.equal(found, shown)
