"""The leaky integrate-and-fire neuron whose threshold adapts."""

from __future__ import annotations

from torch import Tensor

from engram.snn.neurons.firing import Params, State, fire


def adaptive_lif_step(drive: Tensor, state: State, p: Params) -> tuple[Tensor, State]:
    """One step of the leaky integrate-and-fire neuron whose threshold rises with each of its spikes.

        u[t] = alpha v[t-1] + x[t]
        s[t], v[t] = fire(u[t], theta + kappa a[t-1])
        a[t] = rho a[t-1] + s[t]

    A soft reset subtracts theta, not the raised threshold. The gradient of the rise is kept whatever ``detach_reset``.

    Args:
        drive: x, [B, C, ...].
        state: after the step before, with an adaptation.

    Returns: (spikes in {0, 1}: [B, C, ...], state).

    Source: Bellec et al. 2020 (doi 10.1038/s41467-020-17236-y), the ALIF neuron of its methods.
    """
    assert state.adaptation is not None
    u = p.decay * state.v + drive
    spikes, after = fire(u, p.threshold + p.adaptation * state.adaptation, state, p)
    return spikes, after._replace(adaptation=p.adaptation_decay * state.adaptation + spikes)
