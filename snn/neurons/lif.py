"""The leaky integrate-and-fire neuron, its decay given or learned."""

from __future__ import annotations

from torch import Tensor

from engram.snn.neurons.firing import Params, State, fire


def lif_step(drive: Tensor, state: State, p: Params) -> tuple[Tensor, State]:
    """One step of the leaky integrate-and-fire neuron.

        u[t] = alpha v[t-1] + x[t]
        s[t], v[t] = fire(u[t], theta)

    The drive is not scaled by 1 - alpha: a constant one, x, drives the potential towards x / (1 - alpha). In the
    parametric neuron (plif) alpha = sigmoid(a) with a learned.

    Args:
        drive: x, [B, C, ...].
        state: after the step before.

    Returns: (spikes in {0, 1}: [B, C, ...], state).

    Source: Gerstner et al. 2014, "Neuronal Dynamics", section 1.3, integrated over one step;
    plif: Fang et al. 2021 (arXiv 2007.05785), without its scaling of the drive.
    """
    return fire(p.decay * state.v + drive, p.threshold, state, p)
