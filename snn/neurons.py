"""Spiking neurons as pure functions: state in, state out; the equations are the documentation."""

from __future__ import annotations

import torch
from torch import Tensor

from snn.timed import TimedNeurons


def if_start(threshold: Tensor, like: Tensor) -> Tensor:
    """Membrane potential before the first step: half the threshold, so that the spike count rounds to nearest.

    Args:
        threshold: broadcastable to ``like``.
        like: [B, ...] the drive of one step.

    Returns: [B, ...] potential in the units of the drive.

    Source: Bu et al. 2022 (arXiv 2303.04347), section 4.3.
    """
    return torch.empty_like(like).copy_(threshold).mul_(0.5)


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


def if_scan(drive: Tensor, threshold: Tensor, out: Tensor) -> Tensor:
    """`if_step` over all steps, in place: the same numbers, three kernels and no allocation per step.

    Args:
        drive: [T, B, ...]; may be a constant expanded over T.
        threshold: [1, ...], broadcastable to one step.
        out: [T, B, ...] receives the spikes in {0, 1}; may be ``drive`` itself, which it then overwrites.

    Returns: ``out``.
    """
    v = if_start(threshold, drive[0])
    for x, spikes in zip(drive.unbind(0), out.unbind(0), strict=True):
        v.add_(x)
        torch.ge(v, threshold, out=spikes)
        v.addcmul_(spikes, threshold, value=-1)
    return out


class IntegrateFire(TimedNeurons):
    """Stands where a ReLU stood: the neurons' parameters. The potential is no attribute; it lives inside one call.

    Args:
        threshold: [C] or [1], one per channel or one for the layer, in the units of the activation it replaces.
        silent: [C] or [1] bool, channels that never fired on the calibration images.
    """

    threshold: Tensor
    silent: Tensor

    def __init__(self, threshold: Tensor, silent: Tensor) -> None:
        super().__init__()
        self.register_buffer("threshold", threshold)
        self.register_buffer("silent", silent)

    def threshold_of(self, one_step: Tensor) -> Tensor:
        """one_step: [B, C, ...] -> the thresholds of one image's neurons, [1, C, ...], in the same memory layout."""
        shape = (1, -1, *[1] * (one_step.ndim - 2))
        return torch.empty_like(one_step[:1]).copy_(self.threshold.view(shape))

    def forward(self, drive: Tensor, out: Tensor | None = None) -> Tensor:
        """drive: [T, B, C, ...] -> spikes in {0, 1} of the same shape, written to ``out`` when it is given."""
        return if_scan(drive, self.threshold_of(drive[0]), torch.empty_like(drive) if out is None else out)
