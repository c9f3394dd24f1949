"""The integrate-and-fire neuron."""

from __future__ import annotations

from torch import Tensor

from engram.snn.neurons.firing import Params, State, fire


def if_step(drive: Tensor, state: State, p: Params) -> tuple[Tensor, State]:
    """One step of the integrate-and-fire neuron.

        u[t] = v[t-1] + x[t]
        s[t], v[t] = fire(u[t], theta)

    Args:
        drive: x, [B, C, ...].
        state: after the step before.

    Returns: (spikes in {0, 1}: [B, C, ...], state).

    Source: Lapicque 1907; with soft reset Rueckauer et al. 2017 (doi 10.3389/fnins.2017.00682), equation 3.
    """
    return fire(state.v + drive, p.threshold, state, p)
