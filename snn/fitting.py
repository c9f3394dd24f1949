"""Training the layers in front of one neuron layer so that its spike counts come near the analog activations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from snn.neurons import IntegrateFire, per_neuron
from snn.segments import layer_nodes, prefix, segment
from snn.spiking import rates
from snn.timed import TimeFolded

EPOCHS = 4
BATCH = 32
RATE = 0.02
"""Learning rate of Adam as a share of a layer's root mean square weight, falling to zero linearly."""
BYTES = 2**29
"""Inputs and targets kept in memory; where there are more images than fit, the first ones are used."""


class _Count(torch.autograd.Function):
    """clip(floor(T x + start), 0, T) / T: the rate of neurons driven by a constant x; the floor is passed through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: Tensor, steps: int) -> Tensor:
        """x: [B, C, ...] in thresholds -> the same shape."""
        total = x * steps + start
        ctx.save_for_backward((total >= 0) & (total < steps + 1))
        return total.floor_().clamp_(0, steps).div_(steps)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None


def fit_weights(
    spiking: fx.GraphModule, analog: fx.GraphModule, layer: str, batches: Iterable[Tensor], steps: int, fitted: set[str]
) -> None:
    """Adjust, in place, the convolutions and linear layers between ``layer`` and the neurons before it.

    They get the rates that those neurons really send, and are trained to make the rate that their mean drive gives
    (`_Count`) the analog activation, in the mean square.

    Args:
        spiking: in units of thresholds.
        analog: the network it was made from, activations under the same names.
        layer: the neurons whose counts are to be right.
        batches: normalised training images, [b, C, H, W] each.
        steps: T.
        fitted: layers that were adjusted for other neurons already and must stay; this one's are added.

    Source: Li et al. 2021 (arXiv 2106.06984), section 4.3, equation 16.
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
        groups.append({"params": list(module.requires_grad_(True).parameters()), "lr": rate})
    _descend(part, groups, inputs, targets, lambda drive: _Count.apply(drive, start, steps))
    part.requires_grad_(False)


def _descend(
    part: fx.GraphModule, groups: list[dict[str, Any]], inputs: list[Tensor], targets: Tensor, rate: Any
) -> None:
    count = len(targets)
    batch = min(BATCH, count)
    total = EPOCHS * (count // batch)
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total)
    order = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            for places in torch.randperm(count, generator=order)[: count // batch * batch].split(batch):
                chosen = places.to(targets.device)
                loss = (rate(part(*[value[chosen] for value in inputs])) - targets[chosen]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()


@torch.no_grad()
def _examples(
    spiking: fx.GraphModule,
    analog: fx.GraphModule,
    layer: str,
    sources: list[str],
    batches: Iterable[Tensor],
    steps: int,
) -> tuple[list[Tensor], Tensor]:
    """Mean values [N, ...] at the inputs of a segment, and the analog outputs [N, C, ...] of its neurons."""
    before, end = prefix(spiking, layer), layer_nodes(analog)[layer]
    inputs: list[list[Tensor]] = [[] for _ in sources]
    targets: list[Tensor] = []
    size = 0
    for batch in batches:
        for found in rates(before, [batch], steps, sources):
            for kept, source in zip(inputs, sources, strict=True):
                kept.append(found[source])
        run = TimeFolded(prefix(analog, layer), 1, frames=False, keep=[end])
        run.run(batch)
        targets.append(run.kept[end])
        size += sum(part.nbytes for part in (targets[-1], *(kept[-1] for kept in inputs)))
        if size > BYTES:
            break
    return [torch.cat(kept) for kept in inputs], torch.cat(targets)
