"""The integrate-and-fire neuron: one step of it, and the layer of them that conversion puts where activations stood."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.snn.neurons.firing import Params, State, fire
from engram.snn.neurons.timed import TimedNeurons

HALF = 0.5
"""Start of the potential, in thresholds, at which the spike count of a constant drive rounds to nearest.

Source: Bu et al. 2022 (arXiv 2303.04347), section 4.3.
"""


def if_step(drive: Tensor, state: State, p: Params) -> tuple[Tensor, State]:
    """One step of the integrate-and-fire neuron.

        u[t] = v[t-1] + x[t]
        s[t], v[t] = fire(u[t], theta)

    Started at half a threshold, a constant drive x gives ``clip(floor((T x + theta / 2) / theta), 0, T)`` spikes in T
    steps with soft reset.

    Args:
        drive: x, [B, C, ...].
        state: after the step before.

    Returns: (spikes in {0, 1}: [B, C, ...], state).

    Source: Lapicque 1907; with soft reset Rueckauer et al. 2017 (doi 10.3389/fnins.2017.00682), equations 3 and 4.
    """
    return fire(state.v + drive, p.threshold, state, p)


def if_scan(drive: Tensor, v: Tensor, out: Tensor, current: Tensor | None = None) -> Tensor:
    """`if_step` with threshold 1 and soft reset over all steps, in place: three kernels and no allocation per step.

    Args:
        drive: [T, B, ...] in units of the threshold; may be a constant expanded over T.
        v: [B, ...] potential before the first step; overwritten with the one after the last. A neuron that starts at
            minus infinity never fires.
        out: [T, B, ...] receives the spikes in {0, 1}; may be ``drive`` itself, which it then overwrites.
        current: broadcastable to one step, added to the drive of every step.

    Returns: ``out``.
    """
    for x, spikes in zip(drive.unbind(0), out.unbind(0), strict=True):
        v.add_(x)
        if current is not None:
            v.add_(current)
        torch.ge(v, 1.0, out=spikes)
        v.sub_(spikes)
    return out


class IntegrateFire(TimedNeurons):
    """Stands where an activation stood: integrate-and-fire neurons with threshold 1 that send 1.

    The weights around them carry the thresholds (`engram.snn.conversion.scaling`). The potential is no attribute; it
    lives inside a call.

    Args:
        threshold: [C] or [1], what one spike stands for, in the units of the activation that was replaced. The
            simulation does not need it; reports and the way back to analog units do.
        silent: [C] or [1] bool, channels that never fired on the calibration images.
        start: potential before the first step, as a fraction of the threshold.

    Buffers ``start`` ([1], [C] or [C, H, W]) and ``current`` ([1] or [C], added to the drive of every step), both in
    units of the threshold, are what calibration changes.
    """

    threshold: Tensor
    silent: Tensor
    start: Tensor
    current: Tensor

    def __init__(self, threshold: Tensor, silent: Tensor, start: float = HALF) -> None:
        super().__init__()
        self.register_buffer("threshold", threshold)
        self.register_buffer("silent", silent)
        self.register_buffer("start", torch.full_like(threshold[:1], start))
        self.register_buffer("current", torch.zeros_like(threshold[:1]))

    def begin(self, one_step: Tensor) -> Tensor:
        """one_step: [B, C, ...] -> the potential before the first step, of the same shape and memory layout."""
        return torch.empty_like(one_step).copy_(per_neuron(self.start, one_step))

    def scan(self, drive: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """drive: [T, B, C, ...] in units of the threshold -> (spikes in {0, 1}, the state after step T)."""
        v = self.begin(drive[0]) if state is None else state.v.clone()
        return self(drive, torch.empty_like(drive), v), State(v)

    def forward(self, drive: Tensor, out: Tensor | None = None, v: Tensor | None = None) -> Tensor:
        """Spikes of all steps.

        Args:
            drive: [T, B, C, ...] in units of the threshold.
            out: [T, B, C, ...] to write to, possibly ``drive`` itself.
            v: [B, C, ...] from `begin`; it is left as it is after the last step.

        Returns: [T, B, C, ...] in {0, 1}.
        """
        v = self.begin(drive[0]) if v is None else v
        current = per_neuron(self.current, drive[0]) if bool(self.current.any()) else None
        return if_scan(drive, v, torch.empty_like(drive) if out is None else out, current)


def per_neuron(values: Tensor, one_step: Tensor) -> Tensor:
    """values: [1], [C] or [C, H, W] -> broadcastable to ``one_step`` [B, C, ...]."""
    return values if values.ndim == one_step.ndim - 1 > 1 else values.view(-1, *[1] * (one_step.ndim - 2))
