"""What all neurons share: their parameters and state, and what happens once the potential of a step is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from engram.snn.neurons.options import Neuron, Reset, Surrogate
from engram.snn.neurons.surrogates import spike


class Params(NamedTuple):
    """Parameters of a layer's neurons, broadcastable to one step [B, C, ...]; those a neuron has not are not read."""

    neuron: Neuron
    decay: Tensor
    """alpha: share of the potential left after a step, []."""
    synaptic_decay: float
    """beta: share of the current left after a step."""
    adaptation: float
    """kappa: what a spike adds to the threshold."""
    adaptation_decay: float
    """rho: share of the threshold's rise left after a step."""
    threshold: Tensor
    """theta > 0: [] for the layer, or [1, C, 1, ...] for each channel."""
    reset: Reset
    detach_reset: bool
    refractory: int
    surrogate: Surrogate
    slope: float
    pool: int = 1
    """Average pooling behind the neurons, over windows of pool x pool that do not overlap."""


class State(NamedTuple):
    """What neurons carry from step to step, each [B, C, ...] in fp32 (fp64 for a drive in fp64)."""

    v: Tensor
    """Potential after the reset."""
    current: Tensor | None = None
    """Synaptic current: cuba-lif."""
    adaptation: Tensor | None = None
    """Rise of the threshold in units of ``Params.adaptation``: adaptive-lif."""
    rest: Tensor | None = None
    """Refractory steps left, whole numbers; without a gradient."""

    def detached(self) -> State:
        """The same numbers without their history, for truncated backpropagation through time."""
        return State(self.v.detach(), *(None if part is None else part.detach() for part in self[1:]))


Step = Callable[[Tensor, State, Params], tuple[Tensor, State]]


def start(drive: Tensor, p: Params) -> State:
    """The state of rest. drive: [B, C, ...] of one step, whose memory layout the state takes."""
    dtype = torch.promote_types(drive.dtype, torch.float32)

    def zeros(wanted: bool) -> Tensor | None:
        return torch.zeros_like(drive, dtype=dtype, requires_grad=False) if wanted else None

    v = torch.zeros_like(drive, dtype=dtype)
    return State(v, zeros(p.neuron == "cuba-lif"), zeros(p.neuron == "adaptive-lif"), zeros(p.refractory > 0))


def fire(u: Tensor, threshold: Tensor, state: State, p: Params) -> tuple[Tensor, State]:
    """Threshold and reset of one step, and the refractory period.

        s = 1 if u >= threshold and r = 0 else 0
        v = u - theta s                             (soft reset)
        v = u (1 - s)                               (hard reset)
        v, r = v[t-1], r - 1    while r > 0         (refractory: the potential is held, the drive of the step is lost)
        r = refractory          after a spike

    Args:
        u: [B, C, ...] the potential of this step, before the reset.
        threshold: theta, plus its rise in adaptive neurons; broadcastable to u.
        state: after the step before; ``v`` and ``rest`` are replaced.

    Returns: (spikes in {0, 1}: [B, C, ...], state).
    """
    spikes = spike(u - threshold, p.surrogate, p.slope)
    if state.rest is not None:
        held = state.rest > 0
        spikes, u = torch.where(held, 0.0, spikes), torch.where(held, state.v, u)
        state = state._replace(
            rest=torch.where(spikes.detach() > 0, float(p.refractory), (state.rest - 1).clamp_min(0))
        )
    return spikes, state._replace(v=reset(u, spikes, p))


def reset(u: Tensor, spikes: Tensor, p: Params) -> Tensor:
    """v = u - theta s (soft) or u (1 - s) (hard); u, spikes: [B, C, ...]."""
    s = spikes.detach() if p.detach_reset else spikes
    return u - p.threshold * s if p.reset == "soft" else u * (1 - s)
