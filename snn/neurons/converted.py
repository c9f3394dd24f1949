"""Spiking neurons as pure functions: state in, state out; the equations are the documentation."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.snn.neurons.timed import TimedNeurons

HALF = 0.5
"""Start of the potential, in thresholds, at which the spike count of a constant drive rounds to nearest."""


def if_start(threshold: Tensor, like: Tensor) -> Tensor:
    """Membrane potential before the first step: half the threshold, so that the spike count rounds to nearest.

    Args:
        threshold: broadcastable to ``like``.
        like: [B, ...] the drive of one step.

    Returns: [B, ...] potential in the units of the drive.

    Source: Bu et al. 2022 (arXiv 2303.04347), section 4.3.
    """
    return torch.empty_like(like).copy_(threshold).mul_(HALF)


def if_step(drive: Tensor, v: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the integrate-and-fire neuron with reset by subtraction.

        u[t] = v[t-1] + x[t]
        s[t] = 1 if u[t] >= theta else 0
        v[t] = u[t] - theta s[t]

    Args:
        drive: x, [B, ...]; the input current of this step.
        v: [B, ...] potential left by the step before (`if_start` for the first).
        threshold: theta > 0, broadcastable to ``drive``.

    Returns: (s: [B, ...] spikes in {0, 1}, v: [B, ...]). A constant drive x gives
    ``clip(floor((T x + theta / 2) / theta), 0, T)`` spikes in T steps.

    Source: Rueckauer et al. 2017 (doi 10.3389/fnins.2017.00682), equations 3 and 4.
    """
    u = v + drive
    spikes = (u >= threshold).to(drive.dtype)
    return spikes, u - threshold * spikes


def if_scan(drive: Tensor, v: Tensor, out: Tensor, current: Tensor | None = None) -> Tensor:
    """`if_step` over all steps with threshold 1, in place: three kernels and no allocation per step.

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
