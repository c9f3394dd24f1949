"""Populations and connections run in floating point: what chips and files are held against."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.backbone.errors import must
from engram.snn.lowering.network import INPUT, Cells, Lowered, Population
from engram.snn.neurons.integrate_fire import per_neuron


@dataclass(frozen=True)
class Step:
    """What happened in one step, by population, each [B, *shape].

    Attributes:
        drives: the sum of what arrived.
        potentials: u, before the reset (an integrator's: the sum of its drives so far; none for relu).
        sent: spikes, or activations; none for the integrator.
    """

    drives: Mapping[str, Tensor]
    potentials: Mapping[str, Tensor]
    sent: Mapping[str, Tensor]


@torch.no_grad()
def run(lowered: Lowered, images: Tensor) -> Tensor:
    """The logits at every step.

    Args:
        images: [B, C, H, W], or frames [B, T, C, H, W]: uint8, or floats in units of `INPUT`.

    Returns: [T, B, K], what the read-out got at each step. A classifier's answer is their mean over the steps after
    ``lowered.delay``, or the last (``lowered.readout``).
    """
    last = lowered.populations[-1].name
    return torch.stack([step.drives[last] for step in steps(lowered, images)])


def steps(lowered: Lowered, images: Tensor) -> Iterator[Step]:
    """One step after another, all images together; images: see `run`."""
    frames = _frames(lowered, images)
    shapes = {INPUT: lowered.in_shape, **{each.name: each.shape for each in lowered.populations}}
    before: deque[dict[str, Tensor]] = deque(maxlen=1 + _longest(lowered))
    cells = {each.name: _Running(each) for each in lowered.populations}
    for x in frames:
        sent: dict[str, Tensor] = {INPUT: x}
        before.appendleft(sent)
        drives, potentials = {}, {}
        for each in lowered.populations:
            drive = _drive(each, before, shapes)
            drives[each.name] = drive
            potential, out = cells[each.name].step(drive)
            if potential is not None:
                potentials[each.name] = potential
            if out is not None:
                sent[each.name] = out
        yield Step(drives, potentials, sent)


def as_input(images: Tensor, dtype: torch.dtype) -> Tensor:
    """images: uint8, or floats in units of `INPUT` -> the latter."""
    return images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)


def _frames(lowered: Lowered, images: Tensor) -> Iterator[Tensor]:
    wanted = 5 if lowered.frames else 4
    if images.ndim != wanted or tuple(images.shape[-3:]) != lowered.in_shape:
        rule = ("[B, T, {}, {}, {}]" if lowered.frames else "[B, {}, {}, {}]").format(*lowered.in_shape)
        raise must("images for this network", rule, list(images.shape), "Check --dataset, or reshape them.")
    like = next(lowered.populations[0].connections[0].layers.parameters())
    x = as_input(images.to(like.device), like.dtype)
    yield from x.unbind(1) if lowered.frames else (x for _ in range(lowered.steps))


def _longest(lowered: Lowered) -> int:
    return max(one.delay for each in lowered.populations for one in each.connections)


def _drive(population: Population, before: deque[dict[str, Tensor]], shapes: Mapping[str, tuple[int, ...]]) -> Tensor:
    """The sum of what arrives, [B, *shape]; before the first step nothing was sent."""
    now = before[0][INPUT]
    total = now.new_zeros(len(now), *population.shape)
    for one in population.connections:
        sent = before[one.delay].get(one.source) if one.delay < len(before) else None
        total = total + one.layers(now.new_zeros(len(now), *shapes[one.source]) if sent is None else sent)
    return total


class _Running:
    """The neurons of one population, with their state."""

    def __init__(self, population: Population) -> None:
        self.cells: Cells = population.cells
        self.v: Tensor | None = None
        self.current: Tensor | None = None
        self.rest: Tensor | None = None

    def step(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """x: [B, *shape] drive -> (u, what is sent)."""
        cells = self.cells
        if cells.kind == "relu":
            return None, x.clamp_min(0)
        if self.v is None:
            self.v = torch.zeros_like(x) + per_neuron(cells.start.to(x), x)
            self.current, self.rest = torch.zeros_like(x), torch.zeros_like(x)
        assert self.current is not None and self.rest is not None
        self.current = cells.synaptic_decay * self.current + x
        u = cells.decay * self.v + self.current + per_neuron(cells.current.to(x), x)
        if cells.kind == "integrator":
            self.v = u
            return u, None
        threshold = per_neuron(cells.threshold.to(x), x)
        held = self.rest > 0
        u = torch.where(held, self.v, u)
        fired = (u >= threshold) & ~held
        self.v = torch.where(fired, u - threshold if cells.reset == "soft" else torch.zeros_like(u), u)
        self.rest = torch.where(fired, float(cells.refractory), (self.rest - 1).clamp_min(0))
        return u, fired.to(x.dtype)
