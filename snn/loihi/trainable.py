"""A network of chip integers that can be trained: rounded forwards, passed straight through backwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.contract import Tap
from engram.backbone.errors import must
from engram.backbone.nets.readout import read_out
from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Population, SigmaDelta, Synapses
from engram.snn.loihi.rounding import MANTISSA, Levels
from engram.snn.loihi.simulator import Simulator
from engram.snn.neurons.integrate_fire import per_neuron
from engram.snn.neurons.surrogates import spike

ALIGNED = 64
STATE = 2**23 - 1


class TrainableChip(nn.Module):
    """A network of chip integers under the `engram.backbone.contract.Backbone` contract; its features are its outputs.

    In evaluation it is the network itself, simulated bit for bit. In training its weights and biases are rounded on
    every pass as they are on the chip, gradients pass the rounding as if it were not there (and end where a weight is
    clipped), and that of a spike is a surrogate's. Thresholds, decays, exponents and delays stay.

    Args:
        network: it can be trained where no population drives itself, not even through others.
        exact: (population, place of the connection) -> weights to begin with, [of the same shape], in the units of the
            network's; by default the whole numbers that it has (`engram.snn.loihi.quantiser.Quantised`).

    Images come as the network takes them, floats in units of `Input.gain`: not normalised.

    Raises:
        UserError: in training, where populations drive themselves.

    Source: Bengio et al. 2013 (arXiv 1308.3432), the straight-through estimator; Jacob et al. 2018 (arXiv 1712.05877),
    training with rounded weights.
    """

    stage_channels: tuple[int, ...] = ()
    any_layout = True

    def __init__(self, network: ChipNetwork, exact: Mapping[tuple[str, int], Tensor] | None = None) -> None:
        super().__init__()
        self.base = network
        self.in_shape: tuple[int, int, int] = tuple(network.input.shape)  # type: ignore[assignment]
        self.feature_dim = math.prod(network.populations[-1].shape)
        self.steps, self.delay = network.steps, network.delay
        graded = isinstance(network.populations[-1].neurons, SigmaDelta)
        self.readout: Literal["mean", "last"] = "last" if graded else "mean"
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.wires: dict[str, list[_Wire]] = {}
        for each in network.populations:
            self.wires[each.name] = [
                self._wire(each, place, (exact or {}).get((each.name, place))) for place in range(len(each.synapses))
            ]
            self.biases.append(nn.Parameter(each.neurons.bias.float() / _bias_unit(each)))

    def _wire(self, target: Population, place: int, exact: Tensor | None) -> _Wire:
        one = target.synapses[place]
        wire = _Wire(one, len(self.weights), _weight_unit(self.base, target, one))
        first = one.weight if exact is None else exact
        self.weights.append(nn.Parameter(first.detach().float() / wire.unit))
        return wire

    def network(self) -> ChipNetwork:
        """The network in whole numbers as it is now."""
        with torch.no_grad():
            populations = []
            for each, bias in zip(self.base.populations, self.biases, strict=True):
                wires = self.wires[each.name]
                synapses = [
                    replace(wire.synapses, weight=wire.rounded(self.weights[wire.place]).to(torch.int32).cpu())
                    for wire in wires
                ]
                rounded = _rounded_bias(each, bias).to(torch.int32).cpu()
                populations.append(replace(each, synapses=tuple(synapses), neurons=replace(each.neurons, bias=rounded)))
        return replace(self.base, populations=tuple(populations))

    def stages(self, x: Tensor) -> list[Tensor]:
        """There are none."""
        return []

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [B, feature_dim]."""
        features = self.forward_steps(x)
        return read_out(features, [len(features)], self.readout, self.delay)[0]

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [T, B, feature_dim], what was read at every step."""
        if tap is not None:
            raise must("a network of chip integers", "looked into with the simulator's keep", "a tap", "Use Simulator.")
        network = replace(self.base, frames=x.ndim == 5)
        with torch.autocast(x.device.type, enabled=False):
            if not self.training:
                return self._simulated(replace(self.network(), frames=x.ndim == 5, delay=0), x)
            return self._trained(network, x.float())

    def _simulated(self, network: ChipNetwork, x: Tensor) -> Tensor:
        """The simulator's answers are means over the steps so far, but for what sigma-delta neurons hold."""
        found = Simulator(network, x.device).run(network.input.whole(x)).logits.to(x.device)
        if self.readout == "last":
            return found
        sums = found.double() * torch.arange(1, len(found) + 1, device=x.device).view(-1, 1, 1)
        return sums.diff(dim=0, prepend=torch.zeros_like(sums[:1])).to(found.dtype)

    def _trained(self, network: ChipNetwork, x: Tensor) -> Tensor:
        _require_order(network)
        sent = {INPUT: _shown(network, x)}
        last = network.populations[-1]
        for each, bias in zip(network.populations, self.biases, strict=True):
            drive = self._drive(each, sent)
            offset = per_neuron(_straight(bias * _bias_unit(each), _rounded_bias(each, bias)), drive[0])
            if isinstance(each.neurons, LIF):
                sent[each.name] = _fired(each.neurons, drive, offset * 2.0**each.neurons.bias_exp)
            elif isinstance(each.neurons, SigmaDelta):
                held, sent[each.name] = _changes(each.neurons, drive, offset)
            else:
                sent[each.name] = drive * ALIGNED + offset * 2.0**each.neurons.bias_exp
            if each is last:
                read = held if isinstance(each.neurons, SigmaDelta) else sent[each.name]  # type: ignore[possibly-undefined]
                unit = each.scale / 2**each.neurons.state_exp if isinstance(each.neurons, SigmaDelta) else each.scale
                return read.flatten(2) * unit
        raise AssertionError("a network has a last population")

    def _drive(self, target: Population, sent: Mapping[str, Tensor]) -> Tensor:
        """What arrives at a population, [T, B, *shape], in whole numbers."""
        shown = sent[INPUT]
        total = shown.new_zeros(*shown.shape[:2], *target.shape)
        for wire in self.wires[target.name]:
            weight = self.weights[wire.place]
            messages = sent[wire.synapses.source]
            for delay, part in wire.parts(_straight(weight * wire.unit, wire.rounded(weight))):
                found = wire.through(messages.flatten(0, 1), part).reshape(*messages.shape[:2], *target.shape)
                total = total + _later(found, delay)
        return total


class _Wire:
    """One of a population's connections.

    Args:
        synapses: as they were.
        place: of its weights among the parameters.
        unit: whole numbers for 1 of these.
    """

    def __init__(self, synapses: Synapses, place: int, unit: float) -> None:
        self.synapses, self.place, self.unit = synapses, place, unit
        weight = synapses.weight
        self.levels = Levels.of(weight, synapses.weight_bits)
        even = bool((weight & 1 == 0).all()) and self.levels.low < 0 < self.levels.high
        self.step = 2 if even and (synapses.kind == "dense" or int(weight.abs().max()) > self.levels.high) else 1
        least, most = int(weight.min()) // self.step, int(weight.max()) // self.step
        self.levels = Levels(min(self.levels.low, least), max(self.levels.high, most))  # files go to -128

    def rounded(self, weight: Tensor) -> Tensor:
        """weight: of the parameters -> whole numbers, in floats."""
        return self.levels.rounded(weight, self.unit / self.step) * self.step

    def parts(self, weight: Tensor) -> Sequence[tuple[int, Tensor]]:
        """weight: in whole numbers -> (steps until it arrives, the weights that take so long)."""
        delays, first = self.synapses.delays, self.synapses.delay
        if delays is None:
            return [(first, weight)]
        delays = delays.to(weight.device)
        return [(first + int(each), torch.where(delays == each, weight, 0.0)) for each in delays.unique()]

    def through(self, messages: Tensor, weight: Tensor) -> Tensor:
        """messages: [N, *in_shape] -> what arrives of them, [N, ...]."""
        one, scaled = self.synapses, weight * 2.0**self.synapses.exponent
        if one.kind == "dense":
            return F.linear(messages.flatten(1), scaled)
        return F.conv2d(messages, scaled, None, one.stride, one.padding, one.dilation, one.groups)


def _require_order(network: ChipNetwork) -> None:
    before = {INPUT}
    for each in network.populations:
        if wrong := [one.source for one in each.synapses if one.source not in before]:
            what = f"what drives {each.name} in a network to be trained"
            raise must(what, "an earlier population", ", ".join(wrong), "Train it in the tool it came from.")
        before.add(each.name)


def _weight_unit(network: ChipNetwork, target: Population, one: Synapses) -> float:
    """Whole numbers of weight for 1 between what 1 of the source and of the target stand for."""
    sources: dict[str, Population] = {each.name: each for each in network.populations}
    source = sources.get(one.source)
    sent = 1 / network.input.gain if source is None else source.scale
    return sent / (2.0**one.exponent * _stands_for(target))


def _stands_for(target: Population) -> float:
    """What 1 of what arrives stands for: in thresholds, or in the units of the network that was quantised."""
    neurons = target.neurons
    if isinstance(neurons, LIF):
        return 1 / (neurons.vth + 1)
    if isinstance(neurons, SigmaDelta):
        return target.scale / 2**neurons.state_exp
    return target.scale * ALIGNED


def _bias_unit(target: Population) -> float:
    """Bias mantissas for 1."""
    neurons = target.neurons
    if isinstance(neurons, SigmaDelta):
        return 1 / (target.scale * 2**neurons.spike_exp)
    return ALIGNED / (_stands_for(target) * 2.0**neurons.bias_exp)


def _rounded_bias(target: Population, bias: Tensor) -> Tensor:
    most = 2**15 - 1 if isinstance(target.neurons, SigmaDelta) else MANTISSA
    return (bias * _bias_unit(target)).round().clamp(-most - 1, most)


def _straight(value: Tensor, rounded: Tensor) -> Tensor:
    """The rounded value, with the gradient of the value itself where it was not clipped."""
    inside = ((rounded - value).detach().abs() <= 1).to(value.dtype)
    return rounded.detach() + (value - value.detach()) * inside


def _shown(network: ChipNetwork, x: Tensor) -> Tensor:
    """What is sent at every step, [T, B, C, H, W]."""
    given = network.input
    whole = given.whole(x).to(x.dtype)
    if network.frames:
        whole = whole.transpose(0, 1)
        return whole if given.encoding == "value" else whole.diff(dim=0, prepend=torch.zeros_like(whole[:1]))
    if given.encoding == "value":
        return whole.expand(network.steps, *whole.shape)
    return torch.cat([whole[None], whole.new_zeros(network.steps - 1, *whole.shape)])


def _later(found: Tensor, delay: int) -> Tensor:
    return torch.cat([torch.zeros_like(found[:delay]), found[: len(found) - delay]]) if delay else found


def _fired(neurons: LIF, drive: Tensor, bias: Tensor) -> Tensor:
    """Spikes [T, B, *shape] of `engram.snn.loihi.arithmetic.lif`, but for what its shifts cut off."""
    unit, limit = float(ALIGNED * (neurons.vth + 1)), float(STATE)
    keep_u, keep_v = (4095 - neurons.du) / 4096, (4096 - neurons.dv) / 4096
    one_step = drive[0]
    start: Any = per_neuron(neurons.start.to(drive.device, drive.dtype), one_step)
    u, v = torch.zeros_like(one_step), torch.zeros_like(one_step) + start
    rest, spikes = torch.zeros_like(one_step), []
    for a in drive.unbind(0):
        u = keep_u * u + ALIGNED * a
        after = (keep_v * v + u + bias).clamp(-limit, limit)
        fired = spike((after - (ALIGNED * neurons.vth + 0.5)) / unit, "arctan", 2.0)
        if neurons.refractory:
            held = rest > 0
            fired, after = torch.where(held, 0.0, fired), torch.where(held, v, after)
            rest = torch.where(fired.detach() > 0, float(neurons.refractory), (rest - 1).clamp_min(0))
        s = fired.detach()
        v = after * (1 - s) if neurons.reset == "hard" else after - unit * s
        spikes.append(fired)
    return torch.stack(spikes)


def _changes(neurons: SigmaDelta, drive: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """(activations, messages) [T, B, *shape] of `engram.snn.loihi.arithmetic.sigma_delta`."""
    up, down = 2.0 ** (neurons.spike_exp + neurons.state_exp), 2.0**-neurons.state_exp
    sigma = before = residue = error = torch.zeros_like(drive[0])
    held, messages = [], []
    for a in drive.unbind(0):
        sigma = sigma + a
        x = sigma + bias * up
        x = x.clamp_min(0) if neurons.activation == "relu" else x
        delta = x - before + residue
        compared = error + delta if neurons.cum_error else delta
        sent = torch.where(compared.detach().abs() >= neurons.vth * up, delta, 0.0)
        error = torch.where(sent.detach() != 0, 0.0, compared) if neurons.cum_error else error
        before, residue = x, delta - sent
        held.append(x)
        messages.append(_straight(sent * down, (sent * down).detach().floor()))
    return torch.stack(held), torch.stack(messages)
