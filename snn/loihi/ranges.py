"""What a quantiser starts from: populations in units of their thresholds, every connection one layer, and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engram.snn.lowering.merging import Merged, merged
from engram.snn.lowering.network import INPUT, Lowered, Population
from engram.snn.lowering.running import steps
from engram.snn.neurons.integrate_fire import per_neuron

LEVELS = 255
"""The largest whole number of the input, which stands for 1 in an image."""
TOGETHER = 16
"""Calibration images that are run at once."""


@dataclass(frozen=True)
class Wire:
    """One connection as a layer.

    Attributes:
        source: a population's name, or `INPUT`.
        layer: in units of the target's thresholds for each message, a spike or 1 of the input's whole numbers; its bias
            is in the population's.
        delay: see `engram.snn.lowering.network.Connection`.
    """

    source: str
    layer: Merged
    delay: int


@dataclass(frozen=True)
class Layer:
    """A population in units of its thresholds (spiking), or in its own (relu, integrator).

    Attributes:
        population: as it was lowered.
        wires: its connections.
        bias: of all of them together, [1], [C] or [*shape].
        current, start: as `Cells` has them, in these units.
    """

    population: Population
    wires: tuple[Wire, ...]
    bias: Tensor
    current: Tensor
    start: Tensor

    @property
    def name(self) -> str:
        return self.population.name

    def bounds(self) -> tuple[float, float]:
        """No drive is smaller or larger, whatever is sent: spikes, or an input of at most `LEVELS`."""
        low = high = torch.zeros((), dtype=torch.float64)
        for wire in self.wires:
            most = LEVELS if wire.source == INPUT else 1
            rows = wire.layer.weight.flatten(1)
            low = low + most * rows.clamp_max(0).sum(1).min()
            high = high + most * rows.clamp_min(0).sum(1).max()
        return float(low), float(high)


def layers(lowered: Lowered) -> tuple[Layer, ...]:
    """The populations of a network as layers.

    Raises:
        UserError: see `merged`.
    """
    shapes = {INPUT: lowered.in_shape, **{each.name: each.shape for each in lowered.populations}}
    return tuple(_layer(each, shapes) for each in lowered.populations)


def _layer(population: Population, shapes: Mapping[str, tuple[int, ...]]) -> Layer:
    cells = population.cells
    unit = cells.threshold.double() if cells.kind == "spiking" else torch.ones(1, dtype=torch.float64)
    found = [(one, merged(one, shapes[one.source])) for one in population.connections]
    like = torch.zeros(1, *population.shape, dtype=torch.float64)
    by_neuron = per_neuron(unit, like)
    bias = _smaller(sum((layer.biases() for _, layer in found), torch.zeros(1)) / by_neuron)
    wires = tuple(
        Wire(one.source, _in_units(layer, unit, LEVELS if one.source == INPUT else 1), one.delay)
        for one, layer in found
    )
    current, start = (_smaller(per_neuron(v.double(), like) / by_neuron) for v in (cells.current, cells.start))
    return Layer(population, wires, bias, current, start)


def _in_units(layer: Merged, unit: Tensor, messages: int) -> Merged:
    """A layer whose outputs are in units [1] or [C], for inputs that are whole numbers up to ``messages``."""
    weight = layer.weight / messages
    if len(unit) > 1:
        places = len(weight) // len(unit)
        unit = unit.repeat_interleave(places).view(-1, *[1] * (weight.ndim - 1))
    return replace(layer, weight=weight / unit, bias=layer.bias.new_zeros(1))


def _smaller(values: Tensor) -> Tensor:
    """values: [1], [C, 1, 1] or [C, H, W] (or [N]) -> the smallest of [1], [C] and [*shape] that says the same."""
    if values.ndim <= 1:
        flat = values.reshape(-1)
        return flat[:1] if bool((flat == flat[:1]).all()) else flat
    rows = values.flatten(1)
    return _smaller(rows[:, 0]) if bool((rows == rows[:, :1]).all()) else values


@dataclass
class Seen:
    """What populations did on calibration images, in units of `Layer`.

    Attributes:
        drives, potentials: population -> the smallest and the largest number, of u before the reset for potentials.
        active: population -> the share of steps at which what was sent is not zero, [C] or [N].
    """

    drives: dict[str, tuple[float, float]]
    potentials: dict[str, tuple[float, float]]
    active: dict[str, Tensor]


@torch.no_grad()
def seen(lowered: Lowered, images: Tensor) -> Seen:
    """Run calibration images and note how far everything goes.

    Args:
        images: see `engram.snn.lowering.running.run`.
    """
    found = Seen({}, {}, {})
    counted = 0
    for part in images.split(TOGETHER):
        for step in steps(lowered, part):
            counted += len(part)
            for each in lowered.populations:
                name, cells = each.name, each.cells
                unit = cells.threshold.double() if cells.kind == "spiking" else torch.ones(1)
                _note(found.drives, name, step.drives[name], unit)
                if name in step.potentials:
                    _note(found.potentials, name, step.potentials[name], unit)
                if name in step.sent:
                    share = (
                        (step.sent[name] != 0).double().flatten(2).mean(2)
                        if len(each.shape) > 1
                        else step.sent[name] != 0
                    )
                    found.active[name] = found.active.get(name, 0) + share.double().sum(0)
    for share in found.active.values():
        share /= counted
    return found


def _note(ranges: dict[str, tuple[float, float]], name: str, value: Tensor, unit: Tensor) -> None:
    value = value.double() / per_neuron(unit, value)
    low, high = ranges.get(name, (0.0, 0.0))
    ranges[name] = (min(low, float(value.min())), max(high, float(value.max())))
