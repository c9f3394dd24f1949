"""One run of some images through a network of chip integers, population after population."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.backbone.nets.readout import read_out
from engram.snn.loihi.arriving import Sent, Wires
from engram.snn.loihi.circles import recurrent
from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Input, Population, SigmaDelta
from engram.snn.loihi.populations import Extremes, Neurons, Scanned, State
from engram.snn.loihi.results import Activity, Run


@dataclass(frozen=True)
class Prepared:
    """A network on a device.

    Attributes:
        groups: populations that are computed together, sources first.
        neurons, wires: of each population, and what reaches it.
        offsets: steps that each population's time lies behind the input's, where its state is set back.
    """

    network: ChipNetwork
    groups: Sequence[Sequence[Population]]
    neurons: Mapping[str, Neurons]
    wires: Mapping[str, Sequence[Wires]]
    offsets: Mapping[str, int]


class Running:
    """The run.

    Args:
        prepared: the network.
        images: [B, C, H, W], or [B, T, C, H, W] where it takes frames, on its device.
        steps: that are read out.
        keep: of ``spikes``, ``u`` and ``v``.
    """

    def __init__(self, prepared: Prepared, images: Tensor, steps: int, keep: Collection[str]) -> None:
        self.prepared, self.network, self.keep = prepared, prepared.network, keep
        self.batch, self.counted = len(images), steps
        self.steps = steps + max(prepared.offsets.values())
        self.last = self.network.populations[-1]
        self.sent = {INPUT: _sent(self.network.input, images, self.steps, self.network.frames)}
        self.extremes = dict[str, Extremes]()
        self.kept = dict[str, Mapping[str, Tensor]]()
        self.read = torch.zeros(0)

    def run(self) -> Run:
        for group in self.prepared.groups:
            inside = {each.name for each in group}
            drives = [self._drive(each, inside) for each in group]
            found = self._together(group, drives) if recurrent(group) else [self._alone(group[0], drives[0])]
            for each, scanned in zip(group, found, strict=True):
                self._note(each, scanned)
        activity = {name: self._activity(name) for name in self.sent}
        return Run(self._logits(), self.batch, self.steps, activity, self.extremes, self.kept)

    def _drive(self, population: Population, inside: Collection[str]) -> Tensor:
        """What arrives from outside of a group, [T, B, *shape], a constant expanded."""
        total = None
        for wires in self.prepared.wires[population.name]:
            if wires.synapses.source in inside:
                continue
            for delay, part in wires.send(self.sent[wires.synapses.source]).items():
                arrived = _later(part, delay, self.steps)
                total = arrived if total is None else total.to(torch.int32) + arrived.to(torch.int32)
        if total is None:
            zero = torch.zeros((), dtype=torch.int32, device=self.prepared.neurons[population.name].device)
            return zero.expand(self.steps, self.batch, *population.shape)
        return total

    def _alone(self, population: Population, drive: Tensor) -> Scanned:
        """A population alone over all steps; on the chip's time its state is set back at its offset."""
        neurons, offset = self.prepared.neurons[population.name], self.prepared.offsets[population.name]
        wanted = self._wanted(population)
        after = neurons.scan(drive[offset:], neurons.begin(self.batch), wanted)
        if not offset:
            return after
        return _joined([neurons.scan(drive[:offset], neurons.begin(self.batch), wanted), after])

    def _together(self, group: Sequence[Population], drives: Sequence[Tensor]) -> list[Scanned]:
        """Populations that drive each other, step by step."""
        names = [each.name for each in group]
        coming = {name: dict[int, Tensor]() for name in names}  # step -> what arrives then
        states: dict[str, State] = {}
        found: dict[str, list[Scanned]] = {name: [] for name in names}
        for t in range(self.steps):
            for each, drive in zip(group, drives, strict=True):
                neurons = self.prepared.neurons[each.name]
                if t in (0, self.prepared.offsets[each.name]):
                    states[each.name] = neurons.begin(self.batch)
                a = drive[t].to(torch.int32)
                if t in coming[each.name]:
                    a = a + coming[each.name].pop(t)
                scanned = neurons.scan(a.unsqueeze(0), states[each.name], self._wanted(each))
                states[each.name] = scanned.state
                found[each.name].append(scanned)
                for name, delay, part in self._delivered(each, scanned, names):
                    there = coming[name]
                    there[t + delay] = there[t + delay] + part if t + delay in there else part
        return [_joined(found[name]) for name in names]

    def _delivered(
        self, source: Population, scanned: Scanned, names: Sequence[str]
    ) -> Iterator[tuple[str, int, Tensor]]:
        """What a population of a group sends at one step within it: who gets it, steps later, [B, *shape] int32."""
        sent = Sent(scanned.messages, _largest(source, scanned.messages), scanned.sent)
        for name in names:
            for wires in self.prepared.wires[name]:
                if wires.synapses.source == source.name:
                    for delay, part in wires.send(sent).items():
                        yield name, delay, part[0].to(torch.int32)

    def _wanted(self, population: Population) -> list[str]:
        read = population is self.last and self.network.readout == "potential"
        return [name for name in ("u", "v") if name in self.keep or (read and name == "v")]

    def _note(self, population: Population, scanned: Scanned) -> None:
        name = population.name
        self.sent[name] = Sent(scanned.messages, _largest(population, scanned.messages), scanned.sent)
        self.extremes[name] = scanned.extremes
        kept = {what: values for what, values in scanned.kept.items() if what in self.keep}
        if "spikes" in self.keep:
            kept["spikes"] = scanned.messages
        if kept:
            self.kept[name] = {what: values.cpu() for what, values in kept.items()}
        if population is self.last:
            begin = self.prepared.offsets[name]
            values = scanned.kept["v"] if self.network.readout == "potential" else scanned.messages
            self.read = values[begin : begin + self.counted].flatten(2).double()

    def _activity(self, name: str) -> Activity:
        count = self.sent[name].count
        reached = [one for wires in self.prepared.wires.values() for one in wires if one.synapses.source == name]
        return Activity(count.cpu(), sum(float((count * wires.fan_out).sum()) for wires in reached))

    def _logits(self) -> Tensor:
        """[T, B, K]: the mean of what reached the last population over the steps counted, or its activation now."""
        found, neurons = self.read, self.last.neurons
        if isinstance(neurons, SigmaDelta):
            return (found * (self.last.scale / (1 << neurons.state_exp))).float().cpu()
        if self.network.readout == "potential":
            found = found.diff(dim=0, prepend=torch.zeros_like(found[:1]))
        counted = read_out(found, range(1, self.counted + 1), "mean", self.network.delay)
        return (counted * self.last.scale).float().cpu()


def _sent(given: Input, images: Tensor, steps: int, frames: bool) -> Sent:
    """What is sent into the network at every step; still images at all of them, frames one after the other."""
    largest, spikes = (1 << given.bits) - 1, given.bits == 1 and not given.signed and given.encoding == "value"
    if not frames and given.encoding == "value":
        return Sent(images.unsqueeze(0), largest, (images != 0).sum(0).double() * steps)
    shown = (images.transpose(0, 1) if frames else images.unsqueeze(0)).to(torch.uint8 if spikes else torch.int32)
    shown = torch.cat([shown, shown.new_zeros(steps - len(shown), *shown.shape[1:])])
    if frames and given.encoding == "delta":
        shown = torch.cat([shown[:1], shown[1:] - shown[:-1]])
    return Sent(shown, largest, (shown != 0).sum((0, 1)).double())


def _largest(population: Population, messages: Tensor) -> int:
    if isinstance(population.neurons, SigmaDelta):
        return int(messages.long().abs().max())
    return 1 if isinstance(population.neurons, LIF) else 0


def _later(part: Tensor, delay: int, steps: int) -> Tensor:
    """part: [T or 1, B, ...] -> [T, B, ...] moved so many steps on, zeros before."""
    if len(part) < steps:
        part = part.expand(steps, *part.shape[1:])
    return torch.cat([torch.zeros_like(part[:delay]), part[: max(steps - delay, 0)]]) if delay else part


def _joined(parts: Sequence[Scanned]) -> Scanned:
    """Steps one after the other as one."""
    extremes = Extremes()
    for part in parts:
        extremes.add(part.extremes)
    kept = {name: torch.cat([part.kept[name] for part in parts]) for name in parts[0].kept}
    sent = torch.stack([part.sent for part in parts]).sum(0)
    return Scanned(torch.cat([part.messages for part in parts]), sent, parts[-1].state, extremes, kept)
