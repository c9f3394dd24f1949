"""Running a network's graph over all simulation steps at once: time is folded into the batch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from engram.snn.graph.sizes import is_size
from engram.snn.graph.taps import GraphTap, unchanged
from engram.snn.neurons.timed import TimedNeurons

N = TypeVar("N", bound=TimedNeurons)


class AlongTime(nn.Module):
    """Base of what is an ordinary layer for a value constant in time, and looks along time at a timed one.

    Unlike neurons it may change the shape, and does not make a constant timed.
    """

    def along_time(self, drive: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What leaves it at every step.

        Args:
            drive: [T, B, ...].
            before: what it remembers of earlier steps; None: there are none.

        Returns: ([T, B, ...], what it remembers after these steps, in memory of its own).
        """
        raise NotImplementedError


class TimeFolded(fx.Interpreter):
    """One run of a graph whose activations are `TimedNeurons`.

    A value is constant in time, [B, ...], until the first neurons; from there on it is timed, [T * B, ...], the steps
    folded into the batch, so that every layer without state runs once, and only neurons and layers `AlongTime` scan
    over steps. Where a constant meets a timed value (a residual addition, say) it is repeated over the steps, and a
    size that was asked of a constant (``n = x.shape[0]``) is that of the repeated one.

    Args:
        graph: the network's graph.
        steps: T.
        frames: the input is timed already.
        keep: names of nodes whose means over time are wanted in ``kept``.
        tap: sees values of the run, and may replace them.
        part: what to run in place of the whole graph, on its modules.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        steps: int,
        frames: bool,
        keep: Collection[str] = (),
        tap: GraphTap | None = None,
        part: fx.Graph | None = None,
    ) -> None:
        super().__init__(graph, graph=part)
        self.tap = tap
        self.steps, self.frames = steps, frames
        self.timed: set[fx.Node] = set()
        self.constant: set[fx.Node] = set()
        self.sizes: dict[fx.Node, Any] = {}  # of constants, as they would be of timed values
        self.keep, self.kept = frozenset(keep), dict[str, Tensor]()

    def fire(self, n: fx.Node, neurons: TimedNeurons, drive: Tensor) -> Tensor:
        """Run one neuron layer. drive: [T, B, C, ...] -> [T, B, C, ...]; a constant drive is expanded, not copied."""
        return neurons(drive)

    def look_back(self, n: fx.Node, layer: AlongTime, drive: Tensor) -> Tensor:
        """Run one layer that looks at earlier steps. drive: [T, B, ...] -> [T, B, ...]."""
        return layer.along_time(drive)[0]

    def value(self, node: fx.Node) -> Tensor:
        """What a node that ran gave, [B, ...] or [T * B, ...]."""
        return self.env[node]

    def in_time(self, n: fx.Node, value: Tensor) -> Tensor:
        """What a node has just given -> [T, B, ...]; a constant is expanded, not copied."""
        return value.unflatten(0, (self.steps, -1)) if n in self.timed else over_time(value, self.steps)

    def run_node(self, n: fx.Node) -> Any:
        module = self.submodules.get(str(n.target)) if n.op == "call_module" else None
        if isinstance(module, TimedNeurons):
            (source,) = n.all_input_nodes
            value = self.value(source)
            timed = source in self.timed
            drive = value.unflatten(0, (self.steps, -1)) if timed else over_time(value, self.steps)
            value = self.fire(n, module, drive).flatten(0, 1)
            self.timed.add(n)
        elif isinstance(module, AlongTime) and n.all_input_nodes[0] in self.timed:
            drive = self.value(n.all_input_nodes[0]).unflatten(0, (self.steps, -1))
            value = self.look_back(n, module, drive).flatten(0, 1)
            self.timed.add(n)
        else:
            self._repeat_constants(n)
            value = super().run_node(n)
            self._note(n)
            if n in self.constant and is_size(n):
                self.sizes[n] = self._size_over_time(n)
        if self.tap is not None and self.tap.sees(n, module):
            value = self._tapped(self.tap, n, module, value)
        if n.name in self.keep:
            value_in_time = value.unflatten(0, (self.steps, -1)) if n in self.timed else value.unsqueeze(0)
            self.kept[n.name] = value_in_time.mean(0)
        if n.op == "output" and n in self.constant and isinstance(value, Tensor):  # no neurons on the way
            return over_time(value, self.steps).flatten(0, 1)
        return value

    def _tapped(self, tap: GraphTap, n: fx.Node, module: nn.Module | None, value: Any) -> Any:
        """What goes on in the place of a node's value: a constant that a tap changes is timed from here on."""
        if not isinstance(value, Tensor) or (n not in self.timed and n not in self.constant):
            return value
        shown = self.in_time(n, value)
        found = tap.value(n, module, shown)
        if unchanged(found, shown):
            return value
        self.constant.discard(n)
        self.timed.add(n)
        return folded(found)

    def _note(self, n: fx.Node) -> None:
        """Remember whether a value carries time, the batch alone, or neither (a parameter)."""
        inputs = n.all_input_nodes
        if n.op == "placeholder":
            (self.timed if self.frames else self.constant).add(n)
        elif any(node in self.timed for node in inputs):
            self.timed.add(n)
        elif any(node in self.constant for node in inputs):
            self.constant.add(n)

    def _repeat_constants(self, n: fx.Node) -> None:
        if not any(node in self.timed for node in n.all_input_nodes):
            return
        for node in n.all_input_nodes:
            value = self.env[node]
            if node not in self.constant:
                continue
            if isinstance(value, Tensor):
                self.env[node] = over_time(value, self.steps).flatten(0, 1)
            elif node in self.sizes:
                self.env[node] = self.sizes[node]
            else:
                continue
            self.constant.discard(node)
            self.timed.add(node)

    def _size_over_time(self, n: fx.Node) -> Any:
        """What a node that asks for a size, or computes with sizes, gives for values repeated over the steps."""
        kept = {node: self.env[node] for node in n.all_input_nodes}
        for node, value in kept.items():
            repeated = (
                value[:1].expand(self.steps * len(value), *value.shape[1:]) if isinstance(value, Tensor) else None
            )
            self.env[node] = self.sizes.get(node, value) if repeated is None else repeated
        try:
            return super().run_node(n)
        finally:
            self.env.update(kept)


def neuron_layers(graph: fx.GraphModule, kind: type[N]) -> dict[str, N]:
    """The neuron layers of a graph that are of one kind, by name, in the order they run."""
    calls = [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]
    found = {name: graph.get_submodule(name) for name in calls}
    return {name: module for name, module in found.items() if isinstance(module, kind)}


def over_time(value: Tensor, steps: int) -> Tensor:
    """value: [B, ...] -> [T, B, ...] without copying."""
    return value.unsqueeze(0).expand(steps, *value.shape)


def empty_over_time(value: Tensor, drive: Tensor) -> Tensor:
    """Memory like ``drive`` [T, B, ...], laid out so that [T * B, ...] is a view in ``value``'s memory format."""
    nhwc = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if nhwc else torch.contiguous_format
    shape = (drive.shape[0] * drive.shape[1], *drive.shape[2:])
    return torch.empty(shape, dtype=value.dtype, device=value.device, memory_format=layout).unflatten(
        0, drive.shape[:2]
    )


def folded(value: Tensor) -> Tensor:
    """value: [T, B, ...] -> [T * B, ...], pictures with channels last in memory."""
    flat = value.flatten(0, 1)
    return flat.contiguous(memory_format=torch.channels_last) if flat.ndim == 4 else flat


def steps_first(x: Tensor) -> Tensor:
    """x: [B, C, H, W] -> itself, frames [B, T, C, H, W] -> [T * B, C, H, W]: what a time-folded graph takes."""
    return folded(x.transpose(0, 1)) if x.ndim == 5 else x.contiguous(memory_format=torch.channels_last)
