"""Spiking populations in whole numbers: scales, thresholds, decays and biases that leave no range."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engram.backbone.errors import must
from engram.snn.loihi.made import Made
from engram.snn.loihi.network import LIF, Integrator, Population, Synapses
from engram.snn.loihi.quantise_options import QuantiseOptions
from engram.snn.loihi.ranges import Layer, Seen
from engram.snn.loihi.rounding import (
    EXPONENTS,
    MANTISSA,
    Levels,
    best_scale,
    current_decay,
    mantissas,
    voltage_decay,
)
from engram.snn.lowering.network import Cells

ALIGNED = 64
"""1 of what arrives is so much in the state."""
THRESHOLDS = 131071
STATE = 2**23 - 1
SUMS = 2**17 - 1
"""What arrives must not be larger, or it wraps in a state of 24 bits."""
ANNOTATED = 2**15 - 1
"""The largest sum that Lava's annotation of ``a_in`` knows."""
WHOLE = 32
"""From here on the scale of weights is rounded down to a whole number: neurons whose weights are their threshold then
fire exactly there."""

PLAIN = 6
"""The shift of a bias that is counted as what arrives is."""
BEYOND = 4.0
"""Times the largest weight that is kept at which a neuron's weights are not clipped: its threshold is raised."""
CONSTANT = 16.0
"""Thresholds that a bias may be at most: a neuron that gets more of them at every step does nothing else."""
FAR = 4.0
"""Thresholds that potentials may be away from 0 before they are clipped, where more room would cost weights bits: what
has been driven so far down will not fire soon, nor what is so far up soon rest."""

SOFT = "the reset subtracts the threshold, for which stock Lava has no neuron: simulation only"


@dataclass(frozen=True)
class Room:
    """How large the whole number that stands for a layer's threshold may be, and why not larger.

    Attributes:
        most: that number; of an integrator the one that stands for 1.
        drive: the largest drive it leaves room for, in thresholds.
        limit: what that drive must stay below, in whole numbers.
        bound: whether the drive is one that no image exceeds.
        whole: whether there is room for all potentials, or else for those up to `FAR` thresholds.
    """

    most: float
    drive: float
    limit: int
    bound: bool
    whole: bool


class Spiking:
    """Quantises layers of spiking neurons and the integrator that reads them.

    Args:
        how: options.
        ranges: what calibration images did; None without any.
        steps: over which the read-out adds up.
    """

    def __init__(self, how: QuantiseOptions, ranges: Seen | None, steps: int) -> None:
        self.how, self.ranges, self.steps = how, ranges, steps
        self.exponents = range(1) if how.plain else EXPONENTS
        self.work = Made()

    def made(self, layers: Sequence[Layer], bits: Mapping[str, int]) -> Made:
        """All layers. bits: population -> bits of its weights in place of the options'.

        Raises:
            UserError: a layer fits into no range.
        """
        for layer in layers:
            self._population(layer, bits.get(layer.name, self.how.weight_bits))
        return self.work

    def _population(self, layer: Layer, bits: int) -> None:
        cells, work = layer.population.cells, self.work
        levels = [Levels.of(wire.layer.weight, bits) for wire in layer.wires]
        best = [best_scale(wire.layer.weight, each) for wire, each in zip(layer.wires, levels, strict=True)]
        layer, raised = _raised(layer, levels, best)
        if raised:
            work.notes.append(f"{layer.name}: {raised} thresholds, tiny beside their weights, are higher")
        kept = _limited(layer, levels, best)
        room = self._room(kept, max(best))
        scale = _snapped(self._common(layer, levels, best, room.most), best, cells)
        if scale < 1:
            what = f"a threshold in {layer.name}"
            remedy = "Train with weight decay, or give calibration images."
            raise must(what, "at least one whole number", f"{scale:.2g} where its weights have room", remedy)
        exponents = [
            self._exponent(wire.layer.weight, each, scale) for wire, each in zip(layer.wires, levels, strict=True)
        ]
        synapses = [
            work.synapses(layer, place, scale / 2**exponent, exponent, bits) for place, exponent in enumerate(exponents)
        ]
        self._note(kept, room, scale)
        wanted = layer.current if _keeps_current(cells) else _sum(layer.bias, layer.current)
        constant = kept.current if _keeps_current(cells) else _sum(kept.bias, kept.current)
        finer = (cells.decay < 1 or cells.kind == "integrator") and not self.how.plain
        least = 0 if finer else PLAIN
        bias, bias_exp = mantissas(constant * (ALIGNED * scale), least) or (None, 0)
        assert bias is not None  # its limit is part of the room
        if _keeps_current(cells) and bool(layer.bias.any()):
            synapses.append(self._always(kept, scale, bits))
        rounded = bias.double() * 2**bias_exp / (ALIGNED * scale)
        work.changed[layer.name] = (work.changed[layer.name][0], rounded - wanted)
        neurons = self._neurons(layer, cells, scale, bias, bias_exp)
        work.populations.append(
            Population(
                name=layer.name,
                shape=layer.population.shape,
                neurons=neurons,
                synapses=tuple(synapses),
                scale=1 / (ALIGNED * scale) if isinstance(neurons, Integrator) else 1.0,
            )
        )
        self._report(layer, room, scale, neurons)

    def _neurons(self, layer: Layer, cells: Cells, scale: float, bias: Tensor, bias_exp: int) -> LIF | Integrator:
        if cells.kind == "integrator":
            return Integrator(bias=bias, bias_exp=bias_exp)
        leaks = cells.decay < 1
        start = layer.start * scale
        start = (start * ALIGNED).round() if leaks else start.round() * ALIGNED
        if cells.reset == "soft" and SOFT not in self.work.notes:
            self.work.notes.append(SOFT)
        if cells.reset == "soft" and leaks:
            self.work.notes.append(
                f"{layer.name}: with a leak and a soft reset it may fire up to 63 / 64 of a unit early"
            )
        # v is a whole number of 64ths: it reaches n where it is above n - 1, if it moves by whole units, or above n - 1
        # / 64 otherwise, which the scale of n + 1 / 64 makes its threshold.
        finer = leaks and cells.reset == "hard"
        return LIF(
            du=current_decay(cells.synaptic_decay) if _keeps_current(cells) else 4095,
            dv=voltage_decay(cells.decay),
            vth=math.floor(scale) if finer else round(scale) - 1,
            bias=bias,
            bias_exp=bias_exp,
            start=start.to(torch.int32),
            reset=cells.reset,
            refractory=cells.refractory,
        )

    def _always(self, layer: Layer, scale: float, bits: int) -> Synapses:
        """A bias that goes through the current: weights from a neuron that fires at every step."""
        name = f"{layer.name}.bias"
        one = torch.ones(1, dtype=torch.int32)
        self.work.populations.append(Population(name=name, shape=(1,), neurons=LIF(vth=0, bias=one), synapses=()))
        self.work.notes.append(f"{layer.name}: its bias enters the current, from a neuron {name} that always fires")
        shape = layer.population.shape
        bias = layer.bias.view(-1, 1, 1) if layer.bias.ndim == 1 and len(shape) == 3 else layer.bias
        weight = bias.expand(shape).reshape(-1, 1)
        levels = Levels.of(weight, bits)
        exponent = self._exponent(weight, levels, scale)
        rounded = levels.rounded(weight, scale / 2**exponent)
        twice = 2 if levels.low < 0 < levels.high else 1
        return Synapses(
            source=name,
            kind="dense",
            weight=(rounded * twice).to(torch.int32),
            in_shape=(1,),
            exponent=exponent - (twice - 1),
            weight_bits=bits,
        )

    def _common(self, layer: Layer, levels: Sequence[Levels], best: Sequence[float], most: float) -> float:
        """The scale of a layer's sums that loses least in all of its connections, of at most ``most``."""
        weights = [wire.layer.weight for wire in layer.wires]

        def loss(scale: float) -> float:
            return sum(
                each.error(weight, scale / 2 ** self._exponent(weight, each, scale))
                for weight, each in zip(weights, levels, strict=True)
            )

        highest = self.exponents[-1]
        scales = {min(each * 2.0 ** max(min(math.floor(math.log2(most / each)), highest), 0), most) for each in best}
        return min(sorted(scales, reverse=True), key=loss)

    def _exponent(self, weight: Tensor, levels: Levels, scale: float) -> int:
        """The shift that loses least for weights whose sums have a scale."""
        return min(self.exponents, key=lambda exponent: levels.error(weight, scale / 2**exponent))

    def _room(self, layer: Layer, wanted: float) -> Room:
        """The first of some limits that leaves the weights all of their bits, or the last."""
        found = None
        for found in self._rooms(layer):
            if found.most >= wanted:
                break
        assert found is not None
        return found

    def _note(self, layer: Layer, room: Room, scale: float) -> None:
        """Say what might leave its range."""
        if not room.bound:
            said = f"room for {self.how.headroom:g} times the largest sum on the calibration images, no bound"
            self.work.notes.append(f"{layer.name}: {said}")
        far = STATE / ALIGNED / scale
        reached = layer.population.cells.kind == "spiking" and self._potential(layer, *layer.bounds()) > far
        if reached and far < self.steps:  # what is further away would not come back in time
            self.work.notes.append(f"{layer.name}: potentials are clipped {far:.1f} thresholds from 0")

    def _rooms(self, layer: Layer) -> Iterator[Room]:
        fixed = self._fixed(layer)
        low, high = layer.bounds()
        drive = max(-low, high)
        for limit, whole in ((ANNOTATED, True), (SUMS, True), (SUMS, False)):
            yield Room(min(fixed, self._at(layer, low, high, limit, whole)), drive, limit, True, whole)
        if self.ranges is not None:
            bias = layer.bias.abs().max() if not _keeps_current(layer.population.cells) else 0
            low, high = (value * self.how.headroom for value in self.ranges.drives[layer.name])
            bounds = layer.bounds()
            low, high = max(low - float(bias), bounds[0]), min(high + float(bias), bounds[1])
            yield Room(min(fixed, self._at(layer, low, high, SUMS, False)), max(-low, high), SUMS, False, False)

    def _fixed(self, layer: Layer) -> float:
        """The limits of threshold, bias and start."""
        cells = layer.population.cells
        constant = float(_sum(layer.bias, layer.current).abs().max())
        most = PLAIN if self.how.plain else EXPONENTS[-1]
        start = float(layer.start.abs().max())
        limits = [
            math.inf if cells.kind == "integrator" else THRESHOLDS,
            MANTISSA * 2.0**most / ALIGNED / constant if constant else math.inf,
            STATE / ALIGNED / start if start else math.inf,
        ]
        return min(limits)

    def _at(self, layer: Layer, low: float, high: float, limit: int, whole: bool) -> float:
        """The most that drives from ``low`` to ``high``, and potentials, leave room for: all, or up to `FAR`."""
        cells = layer.population.cells
        drive = max(-low, high, 1e-12)
        current = drive / (1 - cells.synaptic_decay)
        potential = self._potential(layer, low, high)
        if not whole and cells.kind != "integrator":
            potential = min(potential, FAR)
        return min(limit / drive, SUMS / current, STATE / ALIGNED / potential)

    def _potential(self, layer: Layer, low: float, high: float) -> float:
        """The largest potential: as measured where clipping does no harm, else the largest there can be."""
        cells = layer.population.cells
        constant = _sum(layer.bias, layer.current)
        low, high = low + min(float(constant.min()), 0), high + max(float(constant.max()), 0)
        last = self.steps if cells.decay == 1 else (1 - cells.decay**self.steps) / (1 - cells.decay)
        through = 1 / (1 - cells.synaptic_decay)
        if cells.kind == "integrator":
            return max(-low, high, 1e-12) * self.steps
        if self.ranges is not None:
            seen = self.ranges.potentials[layer.name]
            return max(-seen[0], seen[1], 1.0) * self.how.headroom
        top = 1 + high * through if cells.reset == "hard" else 1 + high * through * last
        return max(-low * through * last, top)

    def _report(self, layer: Layer, room: Room, scale: float, neurons: LIF | Integrator) -> None:
        cells = layer.population.cells
        columns: dict[str, object] = {
            "threshold": neurons.vth if isinstance(neurons, LIF) else None,
            "bias_exponent": neurons.bias_exp,
            "drive_bound": max(abs(each) for each in layer.bounds()) * scale,
            "limit": room.limit,
            "decay_error": (4096 - neurons.dv) / 4096 - cells.decay if isinstance(neurons, LIF) else 0.0,
            "current_decay_error": (4095 - neurons.du) / 4096 - cells.synaptic_decay
            if isinstance(neurons, LIF)
            else 0.0,
        }
        if self.ranges is not None:
            columns["largest_drive"] = max(abs(each) for each in self.ranges.drives[layer.name]) * scale
        self.work.more(layer, **columns)


def _raised(layer: Layer, levels: Sequence[Levels], best: Sequence[float]) -> tuple[Layer, int]:
    """A layer whose channels (or neurons) with weights far beyond those that are kept have all they get made smaller.

    Their thresholds are tiny, as those of channels are that were silent when a network was converted. To clip weights
    alone would change the balance between them and the bias, and silent channels would fire.

    Returns: (the layer, how many).
    """
    rows = layer.population.shape[0]
    if layer.population.cells.kind == "integrator" or any(len(wire.layer.weight) != rows for wire in layer.wires):
        return layer, 0
    kept = [each.largest / scale for each, scale in zip(levels, best, strict=True)]
    beyond = torch.stack(
        [wire.layer.weight.flatten(1).abs().amax(1) / most for wire, most in zip(layer.wires, kept, strict=True)]
    ).amax(0)
    if not bool((beyond > BEYOND).any()):
        return layer, 0
    factor = torch.where(beyond > BEYOND, 1 / beyond, 1.0)
    wires = tuple(
        replace(
            wire,
            layer=replace(wire.layer, weight=wire.layer.weight * factor.view(-1, *[1] * (wire.layer.weight.ndim - 1))),
        )
        for wire in layer.wires
    )
    bias, current, start = (
        values * (factor.view(-1, 1, 1) if values.ndim == 3 else factor)
        for values in (layer.bias, layer.current, layer.start)
    )
    return replace(layer, wires=wires, bias=bias, current=current, start=start), int((beyond > BEYOND).sum())


def _limited(layer: Layer, levels: Sequence[Levels], best: Sequence[float]) -> Layer:
    """A layer with what is left of its weights where they are clipped, and of constants that decide everything."""
    wires = []
    for wire, each, scale in zip(layer.wires, levels, best, strict=True):
        weight = wire.layer.weight.clamp(each.low / scale, each.high / scale)
        wires.append(replace(wire, layer=replace(wire.layer, weight=weight)))
    if layer.population.cells.kind == "integrator":
        return replace(layer, wires=tuple(wires))
    bias, current = (values.clamp(-CONSTANT, CONSTANT) for values in (layer.bias, layer.current))
    return replace(layer, wires=tuple(wires), bias=bias, current=current)


def _keeps_current(cells: Cells) -> bool:
    return cells.synaptic_decay > 0


def _sum(a: Tensor, b: Tensor) -> Tensor:
    """a, b: [1], [C] or [C, H, W] (or [N])."""
    if a.ndim == b.ndim or len(a) == 1 or len(b) == 1:
        return a + b
    return a + b.view(-1, 1, 1) if a.ndim == 3 else a.view(-1, 1, 1) + b


def _snapped(scale: float, best: Sequence[float], cells: Cells) -> float:
    """The scale at which the threshold is a whole number, or the 64th above one (see `Spiking`)."""
    if cells.kind == "integrator":
        return scale
    if cells.decay < 1 and cells.reset == "hard":
        return math.floor(scale - 1 / ALIGNED) + 1 / ALIGNED
    exponent = max(math.floor(math.log2(scale / max(best))), 0)
    of_weights = scale / 2**exponent
    return math.floor(of_weights) * 2.0**exponent if of_weights >= WHOLE else float(math.floor(scale))
