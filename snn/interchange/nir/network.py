"""A NIR graph as a network of ours: ``--backbone nir:FILE``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from engram.backbone.contract import Site, Tap
from engram.backbone.errors import must
from engram.backbone.nets.taps import FEATURES, passed
from engram.snn.interchange.nir.graph import Graph
from engram.snn.interchange.nir.layers import Delay, Neurons, module_of
from engram.snn.interchange.nir.options import NirOptions
from engram.snn.interchange.nir.reading import read
from engram.snn.interchange.nir.semantics import semantics_of
from engram.snn.interchange.nir.shapes import planned
from engram.snn.interchange.nir.structure import from_text
from engram.snn.neurons.options import SLOPES

MEMORY = 2**28
"""Bytes that the largest value of one part of a batch may take when no gradient is wanted."""


def make(in_shape: tuple[int, int, int], options: NirOptions, content: str, path: Path | None) -> NirNetwork:
    """The network in a NIR file, or one of its structure whose weights come afterwards.

    Raises:
        UserError: the file is none, or it takes other images.
    """
    graph = from_text(content) if path is None else read(path)
    return NirNetwork(graph, in_shape, options)


class NirNetwork(nn.Module):
    """A NIR graph under the `engram.backbone.contract.Backbone` contract; what leaves it at a step are its features.

    Weights, biases and scales are trained; the constants of neurons stay as they are. A graph without circles runs node
    by node, all steps of a node at once; one with circles step by step.

    Args:
        graph: one input and one output.
        in_shape: (C, H, W) of an image: the input's, or a row of as many values.
        options: how it is run.

    Raises:
        UserError: the input takes other images, or the semantics are not known.
    """

    stage_channels = ()

    def __init__(self, graph: Graph, in_shape: tuple[int, int, int], options: NirOptions) -> None:
        super().__init__()
        self.plan = planned(graph)
        self.in_shape, self.raw = in_shape, not options.normalise
        how = semantics_of(graph.metadata, options)
        self.how, self.steps, self.delay = how, how.steps, how.delay
        self.readout: Literal["mean", "last"] = how.readout
        self.source_shape = self.plan.shapes[self.plan.source]
        if self.source_shape not in (tuple(in_shape), (math.prod(in_shape),)):
            got = f"images of {'x'.join(map(str, in_shape))}"
            rule = f"of images of {'x'.join(map(str, self.source_shape))}, as the file's input"
            raise must("the data of a NIR network", rule, got, "Use other data.")
        self.feature_dim = math.prod(self.plan.shapes[self.plan.end])
        slope = SLOPES[options.surrogate] if options.slope is None else options.slope
        self.names = _module_names(self.plan.nodes)
        self.nodes = nn.ModuleDict(
            {
                self.names[name]: module_of(node, self.plan.taken[name], how, options.surrogate, slope)
                for name, node in self.plan.nodes.items()
            }
        )
        self.values_per_step = max(map(math.prod, self.plan.shapes.values()))

    def initialise(self, module: nn.Module) -> None:
        """A head of as many outputs begins as the identity: the network's own outputs are the logits."""
        if isinstance(module, nn.Linear) and module.weight.shape == (self.feature_dim, self.feature_dim):
            nn.init.eye_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [T, B, feature_dim]; with no gradient and no tap, part by part."""
        steps = x.shape[1] if x.ndim == 5 else self.steps
        if tap is not None or torch.is_grad_enabled():
            return self._run(x, steps, tap)
        size = max(1, MEMORY // (4 * self.values_per_step * steps))
        return torch.cat([self._run(part, steps, None) for part in x.split(size)], 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [B, feature_dim]."""
        each = self.forward_steps(x)
        return each[self.delay :].mean(0) if self.readout == "mean" else each[-1]

    def stages(self, x: Tensor) -> list[Tensor]:
        """No stages: a graph does not say where one would end."""
        return []

    def _run(self, x: Tensor, steps: int, tap: Tap | None) -> Tensor:
        frames = x.transpose(0, 1) if x.ndim == 5 else x.unsqueeze(0)
        frames = frames.reshape(*frames.shape[:2], *self.source_shape)
        state: dict[str, Any] = {}
        if not self.plan.circular:
            out = self._pass(frames, steps, state, {}, tap, 0)[self.plan.end]
            return self._features(out.expand(steps, *out.shape[1:]), tap, 0)
        before: dict[str, Tensor] = {}
        found: list[Tensor] = []
        for step in range(steps):
            frame = frames[min(step, len(frames) - 1)].unsqueeze(0)
            before = self._pass(frame, 1, state, before, tap, step)
            found.append(self._features(before[self.plan.end], tap, step))
        return torch.cat(found)

    def _features(self, out: Tensor, tap: Tap | None, step: int) -> Tensor:
        flat = out.flatten(2)
        return flat if tap is None else passed(tap, Site(None, step, FEATURES), flat)

    def _pass(
        self,
        frames: Tensor,
        steps: int,
        state: dict[str, Any],
        before: Mapping[str, Tensor],
        tap: Tap | None,
        first: int,
    ) -> dict[str, Tensor]:
        """Every node once, over some steps.

        Args:
            frames: [steps, B, ...], or [1, B, ...] of a still image: what does not change in time runs once.
            steps: how many.
            state: of nodes that have one, by name, after the steps before; it is replaced.
            before: what every node sent in the step before.
            tap: sees what neurons send.
            first: the number of the first of these steps.

        Returns: by node, what it sent, [steps, B, ...] or [1, B, ...].
        """
        sent: dict[str, Tensor] = {}
        for name in self.plan.nodes:
            arriving = [sent[each] for each in self.plan.now[name]]
            arriving += [before[each] for each in self.plan.before[name] if each in before]
            value = frames if name == self.plan.source else arriving[0]
            for each in arriving[1:]:
                value = value + each
            module = self.nodes[self.names[name]]
            if isinstance(module, Neurons | Delay):
                value, state[name] = module.scan(value.expand(steps, *value.shape[1:]), state.get(name))
            else:
                value = module(value.flatten(0, 1)).unflatten(0, value.shape[:2])
            if tap is not None and isinstance(module, Neurons):
                value = passed(tap, Site(None, first, f"nodes.{self.names[name]}"), value)
            sent[name] = value
        return sent


def _module_names(nodes: Mapping[str, Any]) -> dict[str, str]:
    """By node, a name that a module can have: the node's, with what is no letter, digit or _ replaced."""
    found: dict[str, str] = {}
    for name in nodes:
        plain = f"node_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"
        while plain in found.values():
            plain += "_"
        found[name] = plain
    return found
