"""Calibration: what every layer of a spiking network gets wrong on average, measured and put right, layer by layer.

Conversion errors (clipping, rounding, spikes that come late) have a mean that depends on the neuron. Layers are taken
in the order they run, so that each one is corrected for what the corrected ones before it really send.

Source: Li et al. 2021 (arXiv 2106.06984), sections 4.2 (bias, potential) and 4.3 (weights).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, fx

from engram.snn.conversion.fitting import fit_weights
from engram.snn.conversion.methods import Correction
from engram.snn.graph.segments import layer_nodes, prefix
from engram.snn.graph.timed import TimeFolded
from engram.snn.neurons.integrate_fire import per_neuron
from engram.snn.simulation.network import SpikingBackbone, rates


def calibrate(
    net: SpikingBackbone, graph: fx.GraphModule, batches: Iterable[Tensor], method: Correction, steps: int
) -> None:
    """Correct a freshly converted network in place.

    ``bias`` adds to the drive of every channel, at every step, what its neurons send too little on average.
    ``potential`` gives every neuron, once, before the first step, what it sends too little in all of them: its effect
    on the mean fades with the number of steps, as the errors do. ``weights`` first trains the layers in front of the
    neurons (`fit_weights`), then corrects potentials.

    Args:
        net: made from ``graph``, not calibrated yet.
        graph: the lowered analog network.
        batches: normalised training images, [b, C, H, W] each; gone through once per layer and more.
        method: as above.
        steps: the length of simulation at which errors are measured.
    """
    layers = net.neurons()
    wanted = analog_means(graph, list(layers), batches)
    fitted: set[str] = set()
    for name, neurons in layers.items():
        if method == "weights":
            fit_weights(net.graph, graph, name, batches, steps, fitted)
        mean = wanted[name] / per_neuron(neurons.threshold, wanted[name].unsqueeze(0))
        error = mean - spiking_mean(prefix(net.graph, name), name, steps, batches)
        if method == "bias":
            neurons.current = neurons.current + error.reshape(len(error), -1).mean(1)
        else:
            neurons.start = per_neuron(neurons.start, error.unsqueeze(0)) + steps * error


def activations(graph: fx.GraphModule, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """x: [B, C, H, W] -> the outputs of some layers of an analog network, layer -> [B, C, ...]."""
    names = layer_nodes(graph)
    run = TimeFolded(graph, 1, frames=False, keep=[names[layer] for layer in layers])
    run.run(x)
    return {layer: run.kept[names[layer]] for layer in layers}


@torch.no_grad()
def analog_means(graph: fx.GraphModule, layers: Sequence[str], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The mean output over images of each of some activations, layer -> [C, ...]."""
    sums, images = dict[str, Tensor](), 0
    for batch in batches:
        images += len(batch)
        for layer, output in activations(graph, batch, layers).items():
            sums[layer] = output.double().sum(0) + sums.get(layer, 0.0)
    return {layer: (total / images).float() for layer, total in sums.items()}


@torch.no_grad()
def spiking_mean(graph: fx.GraphModule, layer: str, steps: int, batches: Iterable[Tensor]) -> Tensor:
    """The mean over images and steps of the spikes of a layer, [C, ...]; ``graph`` need not go on behind it."""
    node = layer_nodes(graph)[layer]
    sums = [(found[node].double().sum(0), len(found[node])) for found in rates(graph, batches, steps, [node])]
    return (sum(total for total, _ in sums) / sum(images for _, images in sums)).float()  # type: ignore[union-attr]
