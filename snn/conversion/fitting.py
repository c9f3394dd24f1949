"""Training the layers in front of one neuron layer so that its firing rates come near the analog activations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from engram.snn.graph.segments import ending, layer_nodes, output_nodes, prefix, segment
from engram.snn.graph.timed import TimeFolded, over_time
from engram.snn.neurons.integrate_fire import IntegrateFire, per_neuron
from engram.snn.neurons.surrogates import spike
from engram.snn.simulation.network import MEMORY, Simulation, peak_bytes

EPOCHS = 4
BATCH = 32
RATE = 0.02
"""Learning rate of Adam as a share of a layer's root mean square weight, falling to zero linearly."""
SLOPE = 2.0
"""Of the surrogate: a triangle that reaches half a threshold either way."""
BYTES = 2**29
"""Inputs and targets kept in memory; where there are more images than fit, the first ones are used."""


def fit_weights(
    spiking: fx.GraphModule, analog: fx.GraphModule, layer: str, batches: Iterable[Tensor], steps: int, fitted: set[str]
) -> None:
    """Adjust, in place, the convolutions and linear layers between ``layer`` and the neurons before it.

    They get the very spikes that those neurons send, and are trained through time, with a surrogate for the derivative
    of a spike, to make the rate of the neurons behind them the analog activation, in the mean square. So they learn
    what comes too early or too late to count, which a mean rate would not show.

    Args:
        spiking: in units of thresholds.
        analog: the network it was made from, activations under the same names.
        layer: the neurons whose counts are to be right.
        batches: normalised training images, [b, C, H, W] each.
        steps: T.
        fitted: layers that were adjusted for other neurons already and must stay; this one's are added.

    Source: Li et al. 2021 (arXiv 2106.06984), section 4.3, equation 16, with spike trains for their mean rates.
    """
    part, sources = segment(spiking, layer)
    part.requires_grad_(False)
    calls = layer_nodes(part)
    chosen = {name: part.get_submodule(name) for name in calls if name not in fitted}
    chosen = {name: module for name, module in chosen.items() if isinstance(module, nn.Conv2d | nn.Linear)}
    fitted |= set(chosen)
    if not chosen:
        return
    neurons = spiking.get_submodule(layer)
    assert isinstance(neurons, IntegrateFire)
    inputs, targets = _examples(spiking, analog, layer, sources, batches, steps)
    targets = targets / per_neuron(neurons.threshold, targets)
    start = per_neuron(neurons.start, targets)
    groups = []
    for module in chosen.values():
        rate = RATE * float(module.weight.square().mean()) ** 0.5
        groups.append({"params": list(module.requires_grad_().parameters()), "lr": rate})

    def rate_of(places: Tensor) -> Tensor:
        return _rate(_drive(part, inputs, places, steps), start)

    given = {name: copy.deepcopy(module.state_dict()) for name, module in chosen.items()}
    before = _error(rate_of, targets)
    _descend(groups, targets, rate_of)
    part.requires_grad_(False)
    if _error(rate_of, targets) > before:  # neurons that an image drives may count right as they are
        for name, module in chosen.items():
            module.load_state_dict(given[name])


def _descend(groups: list[dict[str, Any]], targets: Tensor, rate: Callable[[Tensor], Tensor]) -> None:
    count = len(targets)
    batch = min(BATCH, count)
    total = EPOCHS * -(-count // batch)
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total)
    order = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            for places in torch.randperm(count, generator=order).split(batch):
                chosen = places.to(targets.device)
                loss = (rate(chosen) - targets[chosen]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()


@torch.no_grad()
def _error(rate: Callable[[Tensor], Tensor], targets: Tensor) -> float:
    """The mean square that `_descend` makes small."""
    parts = torch.arange(len(targets), device=targets.device).split(BATCH)
    return float(sum((rate(places) - targets[places]).square().sum() for places in parts)) / targets.numel()


def _drive(part: fx.GraphModule, inputs: list[Tensor], places: Tensor, steps: int) -> Tensor:
    """What some of the examples give the neurons behind a segment, [T, B, C, ...]."""
    if all(value.dtype != torch.uint8 for value in inputs):
        return over_time(part(*[value[places] for value in inputs]), steps)
    timed = [
        value[:, places].float() if value.dtype == torch.uint8 else over_time(value[places], steps) for value in inputs
    ]
    folded = [value.flatten(0, 1) for value in timed]
    folded = [v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for v in folded]
    return TimeFolded(part, steps, frames=True).run(*folded).unflatten(0, (steps, -1))


def _rate(drive: Tensor, start: Tensor) -> Tensor:
    """The firing rates of integrate-and-fire neurons. drive: [T, B, C, ...] in thresholds -> [B, C, ...]."""
    v, total = start, torch.zeros_like(drive[0])
    for x in drive.unbind(0):
        v = v + x
        spikes = spike(v - 1, "triangle", SLOPE)
        v, total = v - spikes, total + spikes
    return total / len(drive)


@torch.no_grad()
def _examples(
    spiking: fx.GraphModule,
    analog: fx.GraphModule,
    layer: str,
    sources: list[str],
    batches: Iterable[Tensor],
    steps: int,
) -> tuple[list[Tensor], Tensor]:
    """The inputs of a segment, each spikes [T, N, ...] uint8 or values [N, ...], and its neurons' analog outputs."""
    before, after, end = ending(spiking, sources), prefix(analog, layer), layer_nodes(analog)[layer]
    inputs: list[list[Tensor]] = [[] for _ in sources]
    targets: list[Tensor] = []
    size, chunk = 0, 0
    for batch in batches:
        channels, height, width = batch.shape[1:]
        chunk = chunk or max(1, MEMORY // (peak_bytes(before, (channels, height, width)) * steps))
        for images in batch.split(chunk):
            run = Simulation(before, steps, frames=False)
            for kept, value, node in zip(inputs, run.run(images), output_nodes(before), strict=True):
                kept.append(value.unflatten(0, (steps, -1)).to(torch.uint8) if node in run.timed else value)
            analog_run = TimeFolded(after, 1, frames=False, keep=[end])
            analog_run.run(images)
            targets.append(analog_run.kept[end])
            size += sum(part.nbytes for part in (targets[-1], *(kept[-1] for kept in inputs)))
        if size > BYTES:
            break
    joined = [torch.cat(kept, dim=1 if kept[0].dtype == torch.uint8 else 0) for kept in inputs]
    return joined, torch.cat(targets)
