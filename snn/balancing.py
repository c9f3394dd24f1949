"""Thresholds from data: how large the activations get that a neuron must be able to express."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn


@dataclass(frozen=True)
class Thresholds:
    """threshold: [C] or [1] > 0, silent: [C] or [1] bool (never active in calibration)."""

    threshold: Tensor
    silent: Tensor


class RunningPercentile:
    """The exact percentile of every row of a stream, keeping only the values above it.

    Args:
        percentile: in (0, 100].
        total: how many values each row will have in the end.

    Memory: rows x (1 - percentile / 100) x total. The result is that of ``numpy.percentile`` (linear interpolation).
    """

    def __init__(self, percentile: float, total: int) -> None:
        self.total = total
        self.place = (total - 1) * percentile / 100
        self.keep = total - math.floor(self.place)
        self.seen = 0
        self.top: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """values: [rows, n], the next n of each row."""
        self.seen += values.shape[1]
        pool = values if self.top is None else torch.cat([self.top, values], 1)
        self.top = pool if pool.shape[1] <= self.keep else pool.topk(self.keep, 1, sorted=False).values

    def value(self) -> Tensor:
        """[rows], once all ``total`` values have been seen."""
        if self.seen != self.total:
            raise ValueError(f"each row must have had {self.total} values; got {self.seen}")
        top = self._top().topk(min(2, self.keep), 1, largest=False).values.sort(1).values
        below, above = top[:, 0], top[:, -1]
        return torch.lerp(below, above, self.place - math.floor(self.place))

    def largest(self) -> Tensor:
        """[rows]: the maximum, which is always among the kept values."""
        return self._top().amax(1)

    def _top(self) -> Tensor:
        if self.top is None:
            raise ValueError("no values were added")
        return self.top


def balance(
    graph: fx.GraphModule,
    layers: Sequence[str],
    batches: Iterable[Tensor],
    images: int,
    percentile: float,
    per: Literal["channel", "layer"],
) -> dict[str, Thresholds]:
    """Thresholds of the neurons that will replace ReLUs: a percentile of each one's outputs.

    Args:
        graph: the analog network, BatchNorm folded, in evaluation mode.
        layers: module names of its ReLUs.
        batches: normalised training images, [b, C, H, W] float each.
        images: how many there are in all batches.
        percentile: in (0, 100]; 100 is the maximum.
        per: one threshold for every channel, or one for the layer.

    A channel that never fires is silent and takes the layer's largest threshold, so that a surprise on other images is
    passed on coarsely rather than lost; one that fires in too few places for its percentile to be positive takes its
    maximum.

    Source: Rueckauer et al. 2017, section 2.2.2 (99.9th percentile); by channel after Kim et al. 2020 (Spiking-YOLO).
    """
    running: dict[str, RunningPercentile] = {}

    def watch(name: str, output: Tensor) -> None:
        rows = output.transpose(0, 1).flatten(1) if per == "channel" else output.reshape(1, -1)
        if name not in running:
            running[name] = RunningPercentile(percentile, rows.shape[1] // output.shape[0] * images)
        running[name].add(rows)

    def hook(name: str):  # noqa: ANN202  the type of a forward hook has no short name
        return lambda _module, _inputs, output: watch(name, output)

    handles = [graph.get_submodule(name).register_forward_hook(hook(name)) for name in layers]
    try:
        for batch in batches:
            graph(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: _thresholds(running[name]) for name in layers}


def _thresholds(running: RunningPercentile) -> Thresholds:
    threshold, largest = running.value(), running.largest()
    silent = largest <= 0
    threshold = torch.where(threshold > 0, threshold, largest)
    floor = threshold.max() if bool((~silent).any()) else torch.ones_like(threshold[0])
    return Thresholds(torch.where(silent, floor, threshold), silent)


def relu_names(graph: fx.GraphModule) -> list[str]:
    """Module names of the ReLUs of a graph, in the order they run."""
    calls = [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]
    return [name for name in calls if isinstance(graph.get_submodule(name), nn.ReLU)]
