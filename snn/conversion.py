"""From a trained network to a spiking one, step by step; no runner, no files."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, fx, nn

from backbone.errors import TrialError
from backbone.nets.classifier import Classifier
from backbone.nets.folding import fold_batchnorm, trace
from snn.balancing import Thresholds, balance, relu_names
from snn.neurons import IntegrateFire
from snn.preflight import stage_outputs
from snn.spiking import SpikingBackbone

_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
FOLD_TOLERANCE = 1e-4
"""Largest difference that folding may make, relative to the largest feature: float32 rounding and no more."""


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions in true float32: TF32, which GPUs use by default, would shift spikes."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def lower(backbone: nn.Module) -> fx.GraphModule:
    """The graph of a network whose pre-flight passed, BatchNorm folded and layers that do nothing taken out."""
    graph = fold_batchnorm(trace(backbone))
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), _IDLE):
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def check_folding(backbone: nn.Module, graph: fx.GraphModule, images: Tensor) -> float:
    """The largest relative difference folding made on normalised images [B, C, H, W].

    Raises:
        TrialError: it is more than rounding.
    """
    before, after = backbone(images), graph(images)
    error = float((before - after).abs().max() / before.abs().max().clamp_min(1e-12))
    if not error <= FOLD_TOLERANCE:  # NaN included
        raise TrialError(
            f"the folded network must compute what the trained one does; its features differ by {error:.1e} of the"
            f" largest, over {FOLD_TOLERANCE:.0e}. Look for a BatchNorm variance near zero, or NaN weights."
        )
    return error


def spiking(
    backbone: nn.Module, graph: fx.GraphModule, thresholds: Mapping[str, Thresholds], steps: int
) -> SpikingBackbone:
    """Put integrate-and-fire neurons where the ReLUs of a lowered graph are.

    Args:
        backbone: the network that was lowered; it gives the shapes and the stages.
        graph: what `lower` made of it; left as it is.
        thresholds: of every ReLU, by module name.
        steps: simulation steps T.
    """
    graph = copy.deepcopy(graph)
    for name, found in thresholds.items():
        graph.set_submodule(name, IntegrateFire(found.threshold.clone(), found.silent.clone()))
    left = {node.name for node in graph.graph.nodes}
    stages = []
    for node in stage_outputs(backbone):
        while node.name not in left:  # folded or taken out: its value is now that of the layer before
            node = node.all_input_nodes[0]
        stages.append(node.name)
    shape: tuple[int, int, int] = backbone.in_shape  # type: ignore[assignment]
    channels: tuple[int, ...] = backbone.stage_channels  # type: ignore[assignment]
    return SpikingBackbone(graph, shape, int(backbone.feature_dim), channels, stages, steps)  # type: ignore[arg-type]


def convert(
    model: Classifier,
    batches: Iterable[Tensor],
    images: int,
    *,
    steps: int,
    percentile: float = 99.9,
    per: Literal["channel", "layer"] = "channel",
) -> Classifier:
    """A spiking classifier from an analog one whose pre-flight passed.

    Args:
        model: in evaluation mode; left as it is.
        batches: training images as the model takes them, [b, C, H, W] uint8 or float in [0, 1].
        images: how many there are in all batches.
        steps: simulation steps T.
        percentile: see `balancing.balance`.
        per: see `balancing.balance`.
    """
    graph = lower(model.backbone)
    with torch.no_grad():
        stream = _normalised(model, batches)
        first = next(stream)
        check_folding(model.backbone, graph, first)  # before anything listens to the graph: this batch counts once
        found = balance(graph, relu_names(graph), chain([first], stream), images, percentile, per)
    return rebuild(model, graph, found, steps)


def rebuild(model: Classifier, graph: fx.GraphModule, found: Mapping[str, Thresholds], steps: int) -> Classifier:
    """A spiking classifier with the preprocessing and head of ``model``."""
    normalise, net = model.normalise, spiking(model.backbone, graph, found, steps)
    return Classifier(net, copy.deepcopy(model.head), normalise.mean, normalise.std).to(normalise.mean.device).eval()


def _normalised(model: Classifier, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        yield model.normalise(batch).contiguous(memory_format=torch.channels_last)
