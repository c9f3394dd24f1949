"""Neurons of a population over many steps: messages from what arrives, with their state and what was seen of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from engram.snn.loihi import native
from engram.snn.loihi.arithmetic import (
    ALIGNED_BITS,
    DECAY_BITS,
    Cells,
    SigmaDeltaCells,
    SigmaDeltaState,
    lif,
    sigma_delta,
)
from engram.snn.loihi.network import LIF, Integrator, Population, SigmaDelta
from engram.snn.neurons.scanning import inverse, memory_order

CONTIGUOUS = torch.contiguous_format


class LIFState(NamedTuple):
    """u, v: int32 [B, *shape]; rest: the same, or None without refractory steps."""

    u: Tensor
    v: Tensor
    rest: Tensor | None


State = LIFState | SigmaDeltaState


@dataclass
class Extremes:
    """How far a population's state went, over all images and steps.

    Attributes:
        u, v: the largest |u| and |v|; sigma and activation of sigma-delta neurons.
        wrapped, clipped: how often u wrapped and v was clipped; neurons times steps.
    """

    u: int = 0
    v: int = 0
    wrapped: int = 0
    clipped: int = 0

    def add(self, other: Extremes) -> None:
        self.u, self.v = max(self.u, other.u), max(self.v, other.v)
        self.wrapped, self.clipped = self.wrapped + other.wrapped, self.clipped + other.clipped


@dataclass
class Scanned:
    """A population over T steps.

    Attributes:
        messages: [T, B, *shape] uint8 spikes or int32 messages.
        sent: [*shape] float64, how many of them are not zero.
        state: after the last step.
        kept: ``u`` and ``v`` at every step, [T, B, *shape] int32, where they were asked for.
    """

    messages: Tensor
    sent: Tensor
    state: State
    extremes: Extremes
    kept: dict[str, Tensor] = field(default_factory=dict)


class Neurons:
    """A population's neurons on a device.

    Args:
        population: its parameters.
        device: where they run.
    """

    def __init__(self, population: Population, device: torch.device) -> None:
        self.shape, self.neurons = population.shape, population.neurons
        self.device = device
        self.cells = _cells(self.neurons, len(self.shape), device)

    @property
    def potential(self) -> bool:
        """Whether nothing but the potential leaves them."""
        return isinstance(self.neurons, Integrator)

    def begin(self, batch: int) -> State:
        """The state before the first step."""
        zero = torch.zeros(batch, *self.shape, dtype=torch.int32, device=self.device)
        if isinstance(self.neurons, SigmaDelta):
            return SigmaDeltaState(zero, zero, zero, zero)
        if isinstance(self.neurons, Integrator):
            return LIFState(zero, zero, None)
        start = _spread(self.neurons.start, len(self.shape)).to(self.device)
        return LIFState(zero, zero + start, zero if self.neurons.refractory else None)

    def scan(self, drive: Tensor, state: State, keep: Collection[str] = ()) -> Scanned:
        """drive: [T, B, *shape] whole numbers that arrive, may be a constant expanded over T; float32 or int32."""
        if drive.device.type == "cpu" and isinstance(self.cells, Cells) and native.library() is not None:
            assert isinstance(state, LIFState)
            return self._compiled(drive, self.cells, state, keep)
        messages, seen, kept = [], [], {name: list[Tensor]() for name in keep}
        for arrived in drive:
            message, state, outside = self._step(arrived.to(torch.int32), state)
            messages.append(message)
            for name, values in kept.items():
                values.append(state[("u", "v").index(name)])  # type: ignore[arg-type]
            seen.append(torch.stack([*(part.long().abs().max() for part in state[:2]), *outside]))  # type: ignore[union-attr]
        sent, found = torch.stack(messages), torch.stack(seen)  # read once, or a GPU waits at every step
        extremes = Extremes(*found[:, :2].amax(0).tolist(), *found[:, 2:].sum(0).tolist())
        kept_all = {name: torch.stack(each) for name, each in kept.items()}
        return Scanned(sent, (sent != 0).sum((0, 1)).double(), state, extremes, kept_all)

    def _compiled(self, drive: Tensor, cells: Cells, state: LIFState, keep: Collection[str]) -> Scanned:
        """All steps by `native.lif`, in the order that the drive has in memory."""
        order = memory_order(drive)
        if order[1] != 1:
            drive = drive.contiguous()
            order = memory_order(drive)
        rows, back, inner = drive.permute(order), inverse(order), [axis - 1 for axis in order[1:]]
        rows = rows if rows[0].is_contiguous() else rows.contiguous()
        u, v, rest = (None if part is None else part.permute(inner).clone(memory_format=CONTIGUOUS) for part in state)
        assert u is not None and v is not None
        bias = cells.bias if cells.bias.numel() == 1 else cells.bias.expand(self.shape)
        bias = bias.permute([axis - 2 for axis in order[2:]]).contiguous() if bias.numel() > 1 else bias
        every = tuple(torch.empty(rows.shape, dtype=torch.int32) if name in keep else None for name in ("u", "v"))
        flat = rows.as_strided((len(rows), u.numel()), (rows.stride(0), 1))
        spikes, count, seen = native.lif(
            flat,
            u,
            v,
            rest,
            cells,
            bias.flatten(),
            every,  # type: ignore[arg-type]
        )
        kept = {
            name: values.permute(back) for name, values in zip(("u", "v"), every, strict=True) if values is not None
        }
        to_be = [axis - 1 for axis in back[1:]]
        after = LIFState(u.permute(to_be), v.permute(to_be), None if rest is None else rest.permute(to_be))
        sent = count.view(u.shape).sum(0).double().permute([axis - 1 for axis in to_be[1:]])
        return Scanned(spikes.view(rows.shape).permute(back), sent, after, Extremes(*seen), kept)

    def _step(self, a: Tensor, state: State) -> tuple[Tensor, State, tuple[Tensor, Tensor]]:
        """One step: messages, state, and how often u wrapped and v was clipped, int64."""
        if isinstance(self.cells, SigmaDeltaCells):
            assert isinstance(state, SigmaDeltaState)
            message, state = sigma_delta(a, state, self.cells)
            none = torch.zeros((), dtype=torch.int64, device=self.device)
            return message, state, (none, none)
        assert isinstance(state, LIFState)
        step = lif(a, state.u, state.v, state.rest, self.cells)
        return step.spikes, LIFState(step.u, step.v, step.rest), (step.wrapped.sum(), step.clipped.sum())


def _cells(neurons: LIF | SigmaDelta | Integrator, axes: int, device: torch.device) -> Cells | SigmaDeltaCells:
    bias = _spread(neurons.bias, axes).to(device, torch.int32)
    if isinstance(neurons, SigmaDelta):
        up = neurons.spike_exp + neurons.state_exp
        rectified = neurons.activation == "relu"
        return SigmaDeltaCells(neurons.vth << up, neurons.state_exp, rectified, neurons.cum_error, bias << up)
    bias = bias << neurons.bias_exp
    if isinstance(neurons, Integrator):
        return Cells(0, 1 << DECAY_BITS, None, None, 0, bias)
    threshold = neurons.vth << ALIGNED_BITS
    back = (neurons.vth + 1) << ALIGNED_BITS if neurons.reset == "soft" else None
    unity = 1 << DECAY_BITS
    return Cells(unity - neurons.du - 1, unity - neurons.dv, threshold, back, neurons.refractory, bias)


def _spread(values: Tensor, axes: int) -> Tensor:
    """values: [1], [C] or [C, H, W] -> to be added to [B, C, ...] with so many axes behind the batch's."""
    return values if values.ndim != 1 else values.reshape(-1, *[1] * (axes - 1))
