"""Calibration: what every layer of a spiking network gets wrong on average, measured and put right, layer by layer.

Conversion errors (clipping, rounding, spikes that come late) have a mean that depends on the neuron. Layers are taken
in the order they run, so that each one is corrected for what the corrected ones before it really send.

Source: Li et al. 2021 (arXiv 2106.06984), sections 3.3 and 3.4.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, fx

from snn.methods import Conversion
from snn.neurons import per_neuron
from snn.spiking import Simulation, SpikingBackbone, peak_bytes

MEMORY = 2**28


def calibrate(net: SpikingBackbone, graph: fx.GraphModule, batches: Iterable[Tensor], how: Conversion) -> None:
    """Correct a freshly converted network in place.

    Args:
        net: made from ``graph``, not calibrated yet.
        graph: the lowered analog network.
        batches: normalised training images, [b, C, H, W] each; gone through once per layer.
        how: the method, and the length of simulation it aims at.
    """
    layers, steps = net.neurons(), how.fitted_steps
    wanted = analog_means(graph, list(layers), batches)
    for name, neurons in layers.items():
        found = spiking_mean(prefix(net.graph, name), steps, batches)
        error = wanted[name] / per_neuron(neurons.threshold, wanted[name].unsqueeze(0)) - found
        if how.calibration == "bias":
            neurons.current = neurons.current + error.reshape(len(error), -1).mean(1)
        else:
            neurons.start = _spread(neurons.start, error) + steps * error


def _spread(start: Tensor, like: Tensor) -> Tensor:
    return per_neuron(start, like.unsqueeze(0)).expand_as(like)


@torch.no_grad()
def analog_means(graph: fx.GraphModule, layers: Sequence[str], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The mean output over images of each of some activations, layer -> [C, ...]."""
    sums: dict[str, Tensor] = {}
    images = 0

    def hook(name: str):  # noqa: ANN202  the type of a forward hook has no short name
        def add(_module: object, _inputs: object, output: Tensor) -> None:
            sums[name] = output.double().sum(0) + sums.get(name, 0.0)

        return add

    handles = [graph.get_submodule(name).register_forward_hook(hook(name)) for name in layers]
    try:
        for batch in batches:
            images += len(batch)
            graph(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: (total / images).float() for name, total in sums.items()}


@torch.no_grad()
def spiking_mean(graph: fx.GraphModule, steps: int, batches: Iterable[Tensor]) -> Tensor:
    """The mean over images and steps of what a graph ends with, [C, ...]."""
    total, images = torch.zeros((), dtype=torch.float64), 0
    chunk = 0
    for batch in batches:
        channels, height, width = batch.shape[1:]
        chunk = chunk or max(1, MEMORY // (peak_bytes(graph, (channels, height, width)) * steps))
        for part in batch.split(chunk):
            output = Simulation(graph, steps, frames=False).run(part.contiguous(memory_format=torch.channels_last))
            total = total + output.unflatten(0, (steps, -1)).mean(0).double().sum(0)
            images += len(part)
    return (total / images).float()


def prefix(graph: fx.GraphModule, layer: str) -> fx.GraphModule:
    """The part of a graph that ends with the output of ``layer``, on the same modules."""
    part = copy.deepcopy(graph.graph)
    (end,) = (node for node in part.nodes if node.op == "call_module" and node.target == layer)
    (output,) = (node for node in part.nodes if node.op == "output")
    output.args = (end,)
    ended = fx.GraphModule(graph, part)
    ended.graph.eliminate_dead_code()
    ended.recompile()
    return ended
