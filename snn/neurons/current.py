"""The current-based leaky integrate-and-fire neuron."""

from __future__ import annotations

from torch import Tensor

from engram.snn.neurons.firing import Params, State, fire


def cuba_lif_step(drive: Tensor, state: State, p: Params) -> tuple[Tensor, State]:
    """One step of the leaky integrate-and-fire neuron behind a synapse that decays.

        i[t] = beta i[t-1] + x[t]
        u[t] = alpha v[t-1] + i[t]
        s[t], v[t] = fire(u[t], theta)

    The membrane sees the current of the same step, and the reset leaves the current alone.

    Args:
        drive: x, [B, C, ...].
        state: after the step before, with a current.

    Returns: (spikes in {0, 1}: [B, C, ...], state).

    Source: Neftci et al. 2019 (arXiv 1901.09948), without the delay of one step between current and membrane.
    """
    assert state.current is not None
    current = p.synaptic_decay * state.current + drive
    return fire(p.decay * state.v + current, p.threshold, state._replace(current=current), p)
