"""The engine that runs snnTorch's cells, step by step.

| ours          | snnTorch 1.0                                                            |
|---------------|-------------------------------------------------------------------------|
| if            | ``Leaky(beta=1)``                                                       |
| lif, plif     | ``Leaky(beta=alpha)``                                                   |
| cuba-lif      | ``Synaptic(alpha=beta, beta=alpha)``: its alpha is the current's decay  |
| u >= theta    | u > theta in its own surrogates; ours is handed over as ``spike_grad``  |
| reset         | ``reset_mechanism="none"``, and the reset is done here                  |

Its own resets are not ours. By default they come a step late: ``u[t] = beta u[t-1] + x[t] - theta s[t-1]`` subtracts
theta where a reset in the same step has subtracted beta theta by then. With ``reset_delay=False`` a potential that a
soft reset leaves above the threshold loses theta once more for the comparison of the next step, and gets it back after
it, so that it fires at twice the threshold only. And the delayed hard reset of ``Synaptic`` takes what its current
brings in that step, too.
"""

from __future__ import annotations

from collections.abc import Callable

from snntorch import Leaky, Synaptic
from torch import Tensor

from engram.snn.neurons.firing import Params, State, reset, start
from engram.snn.neurons.scanning import pooled, stack_like
from engram.snn.neurons.surrogates import spike


def scan(drive: Tensor, state: State | None, p: Params) -> tuple[Tensor, State]:
    """drive: [T, B, C, ...] -> (spikes [T, B, C, ...], the state after step T)."""
    step, state = _cell(p), start(drive[0], p) if state is None else state
    spikes = []
    for x in drive.unbind(0):
        fired, state = step(x, state)
        spikes.append(fired.to(drive.dtype))
    return pooled(stack_like(spikes, drive), p.pool), state


def _cell(p: Params) -> Callable[[Tensor, State], tuple[Tensor, State]]:
    def surrogate(d: Tensor) -> Tensor:
        return spike(d, p.surrogate, p.slope)

    same = {"threshold": p.threshold, "spike_grad": surrogate, "reset_mechanism": "none"}
    if p.neuron == "cuba-lif":
        synaptic = Synaptic(alpha=p.synaptic_decay, beta=p.decay, **same)

        def with_current(x: Tensor, state: State) -> tuple[Tensor, State]:
            spikes, current, u = synaptic(x, state.current, state.v)
            return spikes, state._replace(v=reset(u, spikes, p), current=current)

        return with_current
    leaky = Leaky(beta=p.decay, **same)

    def alone(x: Tensor, state: State) -> tuple[Tensor, State]:
        spikes, u = leaky(x, state.v)
        return spikes, state._replace(v=reset(u, spikes, p))

    return alone
