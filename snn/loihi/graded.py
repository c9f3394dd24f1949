"""Layers of ReLUs as sigma-delta neurons in whole numbers: scales of states and messages from calibration images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engram.backbone.errors import must
from engram.snn.loihi.made import Made
from engram.snn.loihi.network import Population, SigmaDelta
from engram.snn.loihi.quantise_options import QuantiseOptions
from engram.snn.loihi.ranges import LEVELS, Layer, Seen
from engram.snn.loihi.rounding import EXPONENTS, Levels, best_scale
from engram.snn.lowering.network import INPUT

STATE = 2**23 - 1
BIAS = 2**15 - 1
MESSAGES = 2.0**16
"""The most that a message of the last layers may be, on images that go no further than calibration images."""


class Graded:
    """Quantises layers of ReLUs and the read-out.

    A state is larger than the messages it came from by the weights' whole numbers, and is sent with at most 7 bits
    less. From the input's 8 bits on messages may therefore grow, to 16 bits in the last layer, and faster at first, as
    a bias is no finer than a message; where that is not enough, weights get fewer bits.

    Args:
        how: options.
        ranges: what calibration images did.
    """

    def __init__(self, how: QuantiseOptions, ranges: Seen) -> None:
        self.how, self.ranges = how, ranges
        self.work = Made()
        self.units: dict[str, float] = {INPUT: 1.0}  # whole numbers sent for 1; the input's weights are for its own
        self.cut: dict[str, float] = {}  # what a message loses of the state's lowest bits on average

    def made(self, layers: Sequence[Layer], bits: Mapping[str, int]) -> Made:
        """All layers. bits: population -> bits of its weights in place of the options'.

        Raises:
            UserError: a layer fits into no range.
        """
        notes = self.work.notes
        notes.append(
            f"states have room for {self.how.headroom:g} times the largest on the calibration images, no bound"
        )
        notes.append("messages leave out the lowest bits of what they say: every step may add a unit of them in error")
        for place, layer in enumerate(layers, 1):
            most = LEVELS * (MESSAGES / LEVELS) ** (place / len(layers)) ** 0.5
            self._population(layer, bits.get(layer.name, self.how.weight_bits), most)
        return self.work

    def _population(self, layer: Layer, bits: int, most: float) -> None:
        """most: that a message may be."""
        largest = max(*(abs(each) for each in self.ranges.drives[layer.name]), 1e-12)
        reach = largest * self.how.headroom
        bias = float(layer.bias.abs().max())
        unit_limit = min(most / largest, BIAS / bias if bias else math.inf)
        state_limit = min(STATE / reach, unit_limit * 2 ** EXPONENTS[-1])
        levels = [Levels.of(wire.layer.weight, bits, alike=False) for wire in layer.wires]
        state = self._state(layer, levels, state_limit)
        exponents = [self._exponent(layer, place, levels[place], state) for place in range(len(layer.wires))]
        synapses = []
        for place, exponent in enumerate(exponents):
            scale = state / (self.units[layer.wires[place].source] * 2.0**exponent)
            if scale * float(layer.wires[place].layer.weight.abs().max()) < 1:
                remedy = "Give images whose activations are closer to what they mostly are, or another network."
                raise must(f"weights of {layer.name}", "at least one whole number", "smaller", remedy)
            synapses.append(self.work.synapses(layer, place, scale, exponent, bits))
        shift = min(max(math.ceil(math.log2(state / unit_limit)), 0), EXPONENTS[-1])
        unit = state / 2**shift
        rounded = ((layer.bias + self._left_out(layer)) * unit).round()
        self.work.changed[layer.name] = (self.work.changed[layer.name][0], rounded / unit - layer.bias)
        reads = layer.population.cells.kind == "integrator"
        neurons = SigmaDelta(
            vth=1, bias=rounded.to(torch.int32), state_exp=shift, activation="unit" if reads else "relu"
        )
        self.units[layer.name], self.cut[layer.name] = unit, (1 - 2.0**-shift) / 2
        self.work.populations.append(
            Population(
                name=layer.name,
                shape=layer.population.shape,
                neurons=neurons,
                synapses=tuple(synapses),
                scale=1 / unit,
            )
        )
        self.work.more(
            layer, threshold=1, bias_exponent=shift, largest_drive=largest * state, limit=STATE, message=largest * unit
        )

    def _left_out(self, layer: Layer) -> Tensor:
        """What a layer misses on average because messages round down, [1], [C] or [N]: its bias makes up for it."""
        total = torch.zeros(1, dtype=torch.float64)
        for wire in layer.wires:
            if wire.source == INPUT:
                continue
            lost = self.ranges.active[wire.source] * (self.cut[wire.source] / self.units[wire.source])
            picture = len(wire.layer.in_shape) == 3
            sent = lost.view(1, -1, 1, 1).expand(1, *wire.layer.in_shape) if picture else lost.view(1, -1)
            found = wire.layer.apply(sent.contiguous())[0]
            total = total + (found.flatten(1).mean(1) if found.ndim == 3 else found)
        return total.view(-1, 1, 1) if layer.bias.ndim == 3 and len(total) > 1 else total

    def _state(self, layer: Layer, levels: Sequence[Levels], limit: float) -> float:
        """Whole numbers of the state for 1: as many as the best scale of some connection gives, within the limit."""
        weights = [wire.layer.weight for wire in layer.wires]
        units = [self.units[wire.source] for wire in layer.wires]
        best = [best_scale(*each) * unit for each, unit in zip(zip(weights, levels, strict=True), units, strict=True)]
        tried = {
            min(each * 2.0**-down, limit) for each in best for down in (EXPONENTS if self._shifts(layer) else (0,))
        }
        places = range(len(weights))

        def loss(state: float) -> float:
            found = 0.0
            for place in places:
                exponent = self._exponent(layer, place, levels[place], state)
                found += levels[place].error(weights[place], state / (units[place] * 2.0**exponent))
            return found

        return min(sorted(tried, reverse=True), key=loss)

    def _exponent(self, layer: Layer, place: int, levels: Levels, state: float) -> int:
        """The shift that loses least: to the right of matrices alone, as Lava's convolutions know none."""
        wire = layer.wires[place]
        tried = range(-EXPONENTS[-1], len(EXPONENTS)) if wire.layer.kind == "dense" else EXPONENTS
        unit, weight = self.units[wire.source], wire.layer.weight
        return min(sorted(tried, key=abs), key=lambda exponent: levels.error(weight, state / (unit * 2.0**exponent)))

    def _shifts(self, layer: Layer) -> bool:
        return all(wire.layer.kind == "dense" for wire in layer.wires)
