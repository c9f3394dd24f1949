"""Thresholds from data: how large the activations get that a neuron must be able to express."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, fx, nn

from engram.backbone.errors import must
from engram.snn.conversion.distributions import OCTAVES, Histogram, RunningMaximum, RunningPercentile, bin_shares

Method = Literal["max", "percentile", "mse", "ltb"]
Per = Literal["channel", "layer"]
Batches = Callable[[], Iterable[Tensor]]

COARSE, FINE = 0.97, 4
"""Thresholds tried by ``mse``: the maximum times powers of `COARSE`, then `FINE` more either side of the best."""
LTB_UPDATES = 400
LTB_TOLERANCE = 1e-3
"""``ltb`` ends after so many batches, or when one adds less than this share to the thresholds of every layer."""


@dataclass(frozen=True)
class Thresholds:
    """threshold: [C] or [1] > 0, silent: [C] or [1] bool (never active in calibration)."""

    threshold: Tensor
    silent: Tensor


class Watch(Protocol):
    """Something that looks at values: [n, rows] of a layer, batch after batch."""

    def add(self, values: Tensor) -> None: ...


W = TypeVar("W", bound=Watch)


@torch.no_grad()
def thresholds(
    graph: nn.Module,
    layers: Sequence[str],
    make_batches: Batches,
    images: int,
    *,
    method: Method = "percentile",
    per: Per = "channel",
    percentile: float = 99.9,
    levels: int = 16,
) -> dict[str, Thresholds]:
    """Thresholds of the neurons that will replace activations, from what those put out on some images.

    ``max``: the largest output. ``percentile``: the exact percentile of all outputs. ``mse``: the value V
    whose quantisation, clip(floor(x L / V + 1/2), 0, L) V / L with L ``levels`` (the simulation steps one has in mind),
    is nearest to the outputs in the mean square (`nearest_quantised`).
    ``ltb``: see `local_balance`.

    A channel that never fires is silent and takes the layer's largest threshold, so that a surprise on other images is
    passed on coarsely rather than lost; one that fires in too few places for its percentile to be positive takes its
    maximum.

    Args:
        graph: the analog network, BatchNorm folded, in evaluation mode.
        layers: module names of the activations, each run once per pass and never negative.
        make_batches: every call starts over with the normalised training images, [b, C, H, W] float each.
        images: how many there are in all batches.
        method: as above; ``mse`` goes through the images twice, ``ltb`` until it settles, the others once.
        per: one threshold for every channel, or one for the layer.
        percentile: in (0, 100], of ``percentile``.
        levels: at least 1, of ``mse``.

    Raises:
        UserError: an activation is NaN or infinite, or there are no images.

    Source: Diehl et al. 2015 (max); Rueckauer et al. 2017, section 2.2.2 (99.9th percentile); Li et al. 2021
    (arXiv 2106.06984; mse, there with the floor in place of rounding, as its neurons start at zero); Bu et al. 2025
    (arXiv 2409.03368; ltb). By channel after Kim et al. 2020 (Spiking-YOLO).
    """
    if method == "ltb":
        return {name: _rated(theta, theta) for name, theta in local_balance(graph, layers, make_batches, per).items()}
    if method == "percentile":
        tops = _observed(graph, layers, make_batches, per, lambda _name, n: RunningPercentile(percentile, n * images))
        return {name: _rated(top.value(), top.largest()) for name, top in tops.items()}
    maxima = _observed(graph, layers, make_batches, per, lambda _name, _n: RunningMaximum())
    largest = {name: found.value for name, found in maxima.items() if found.value is not None}
    if method == "max":
        return {name: _rated(value, value) for name, value in largest.items()}
    histograms = _observed(graph, layers, make_batches, per, lambda name, _n: Histogram(largest[name]))
    return {name: _rated(nearest_quantised(found, levels), found.largest) for name, found in histograms.items()}


def nearest_quantised(histogram: Histogram, levels: int) -> Tensor:
    """[rows]: the share of the largest value that, as a threshold, quantises with the least squared error.

    Candidates lie as close together beside small values as beside the largest one, so that an outlier does not make
    the search coarse: powers of `COARSE` first, then for every row `FINE` more on either side of the best of these.
    """
    values = bin_shares().to(histogram.counts.device)

    def errors(shares: Tensor) -> Tensor:
        step = shares[:, None] / levels
        return ((values / step + 0.5).floor().clamp(0, levels) * step - values).square()

    count = 1 + math.floor(OCTAVES * math.log(0.5) / math.log(COARSE))
    coarse = torch.full_like(values[:count], COARSE) ** torch.arange(count, device=values.device)
    near = torch.full_like(values[: 2 * FINE + 1], COARSE) ** torch.linspace(-1, 1, 2 * FINE + 1, device=values.device)
    places = histogram.mean_of(errors(coarse)).argmin(1)
    found = coarse[places]
    for place in places.unique():
        rows = (places == place).nonzero().squeeze(1)
        fine = (coarse[place] * near).clamp_max(1)
        found[rows] = fine[histogram.mean_of(errors(fine), rows).argmin(1)]
    return histogram.largest * found.to(histogram.largest.dtype)


@torch.no_grad()
def local_balance(
    graph: nn.Module, layers: Sequence[str], make_batches: Batches, per: Per = "channel"
) -> dict[str, Tensor]:
    """Local threshold balancing: thresholds descend the error of clipping, batch after batch, from zero.

        theta <- theta + c 2 mean(max(x - theta, 0))
        y = min(x, theta)

    x are an activation's outputs on the batch, by channel; y is what the next layers see, so that they adapt to clipped
    inputs, as in a spiking network. Here c = 1/2, so that the first line is theta <- mean(max(x, theta)): with the
    authors' c = 1 a channel that is never far from its mean starts above its maximum, and thresholds cannot fall. As
    the error falls with every larger theta, where it stops is what regularises: here when no layer's thresholds grow by
    more than `LTB_TOLERANCE` in a batch, or after `LTB_UPDATES` batches (the authors run 4000).

    Returns: [C] or [1] >= 0 for every layer, 0 where nothing was ever active.

    Source: Bu et al. 2025 (arXiv 2409.03368), local threshold balancing.
    """
    theta: dict[str, Tensor] = {}
    growth: dict[str, float] = {}

    def update(name: str, output: Tensor) -> Tensor:
        values = columns(output, per)
        old = theta.get(name, values.new_zeros(values.shape[1]))
        theta[name] = torch.maximum(values, old).mean(0)
        growth[name] = float((theta[name] - old).sum() / theta[name].sum().clamp_min(1e-12))
        return torch.minimum(output, theta[name].view(1, -1, *[1] * (output.ndim - 2)))

    updates = 0
    with _hooked(graph, layers, update):
        while updates < LTB_UPDATES:
            before = updates
            for batch in make_batches():
                graph(batch)
                updates += 1
                if max(growth.values()) <= LTB_TOLERANCE or updates == LTB_UPDATES:
                    return theta
            if updates == before:
                raise _no_images()
    return theta


def columns(output: Tensor, per: Per) -> Tensor:
    """output: [B, C, ...] -> [B * ..., C], or [B * C * ..., 1] per layer; no copy when channels are last in memory."""
    last = output.movedim(1, -1)
    return last.reshape(-1, last.shape[-1]) if per == "channel" else last.reshape(-1, 1)


def relu_names(graph: fx.GraphModule) -> list[str]:
    """Module names of the ReLUs of a graph, in the order they run."""
    calls = [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]
    return [name for name in calls if isinstance(graph.get_submodule(name), nn.ReLU)]


def _observed(
    graph: nn.Module, layers: Sequence[str], make_batches: Batches, per: Per, make: Callable[[str, int], W]
) -> dict[str, W]:
    """Run all images; ``make(layer, values of one image in a row)`` gives what watches a layer."""
    watches: dict[str, W] = {}

    def look(name: str, output: Tensor) -> None:
        values = columns(output, per)
        if name not in watches:
            watches[name] = make(name, len(values) // len(output))
        watches[name].add(values)

    with _hooked(graph, layers, look):
        for batch in make_batches():
            graph(batch)
    if len(watches) < len(layers):
        raise _no_images()
    return watches


def _hooked(graph: nn.Module, layers: Sequence[str], look: Callable[[str, Tensor], Tensor | None]) -> ExitStack:
    """Call ``look(layer, output)`` whenever one of some layers ran; it may return another output."""

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
        def watch(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
            if not bool(output.sum().isfinite()) and not bool(output.isfinite().all()):
                raise must(
                    f"the activations of {name}",
                    "finite numbers on the calibration images",
                    "NaN or infinity",
                    "The network diverged in training or the images hold NaN: train again with a lower learning rate.",
                )
            return look(name, output)

        return watch

    handles = ExitStack()
    for name in layers:
        handles.callback(graph.get_submodule(name).register_forward_hook(hook(name)).remove)
    return handles


def _no_images() -> Exception:
    return must("the calibration images", "at least one", 0, "Give more training images.")


def _rated(threshold: Tensor, largest: Tensor) -> Thresholds:
    silent = largest <= 0
    threshold = torch.where(threshold > 0, threshold, largest)
    floor = threshold.max() if bool((~silent).any()) else torch.ones_like(threshold[0])
    return Thresholds(torch.where(silent, floor, threshold), silent)
