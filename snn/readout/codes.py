"""What stands at the end of a spiking network whose features are no rates of spikes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engram.snn.graph.timed import AlongTime
from engram.snn.neurons.integrate_fire import per_neuron


class SinceFirst(AlongTime):
    """Is on from a neuron's first spike on.

        o[t] = max over t' <= t of s[t']

    With the first spike at step k of 1, 2, ..., T the mean over time is ``1 - (k - 1) / T``: the earlier, the larger;
    without a spike it is 0. What follows, averages over neurons above all, is linear, so that features are averages of
    such values. Gradients go to the first spike.

    Source: time to first spike as a code: Thorpe et al. 2001 (doi 10.1016/S0893-6080(01)00083-1).
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, ...], the same at every step -> itself."""
        return x

    def along_time(self, drive: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """drive: [T, B, C, ...] spikes -> (the same shape, which of them are on after the last step)."""
        on = torch.cummax(drive if before is None else torch.cat([before.unsqueeze(0), drive]), 0).values
        on = on if before is None else on[1:]
        return on, on[-1].clone()


class Membrane(nn.Module):
    """Stands where the last neurons stood: integrators without threshold, leak and reset, of which the drive is seen.

        V[T] = x[1] + ... + x[T]

    The mean over time of what this gives, the drive x[t], is V[T] / T. Where the neurons had a bias of their own at
    every step (`IntegrateFire.current`) it is in the drive; their first potential is not.

    Args:
        neurons: that stood here; their buffers are kept under their names, by which a converted network is made again.

    Source: membrane potentials of a layer that does not fire as read-out: Rathi and Roy 2020 (arXiv 2008.03658),
    section 3.
    """

    def __init__(self, neurons: nn.Module) -> None:
        super().__init__()
        for name, value in neurons.named_buffers(recurse=False):
            self.register_buffer(name, value.clone())

    @property
    def constant(self) -> Tensor | None:
        """[1] or [C], added to the drive of every step; None where there is nothing to add."""
        current = self._buffers.get("current")
        return None if current is None or not bool(current.any()) else current

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, C, ...] -> the same shape."""
        constant = self.constant
        return x if constant is None else x + per_neuron(constant, x)
