"""The engine that runs Norse's cells, step by step, with dt = 1.

| ours          | Norse 1.1                                                                          |
|---------------|------------------------------------------------------------------------------------|
| if            | ``IAFCell``: hard reset only, never detached                                       |
| lif, plif     | ``LIFBoxCell``: tau_mem_inv = 1 - alpha, and the drive divided by it, because the  |
|               | cell moves the potential by (1 - alpha) (x - v); the reset is handed over          |
| cuba-lif      | ``LIFCell``: as above, tau_syn_inv = 1 - beta; its current is the one after decay, |
|               | beta times ours; hard reset only, never detached                                   |
| refractory    | ``LIFRefracCell``, cuba-lif only; it lets gradients into its counter, ours does not |
| u >= theta    | u > theta                                                                          |
| superspike, triangle | "super", "triangle": their slope is 1 whatever alpha is                     |
| sigmoid of slope 4   | "tanh" with alpha = 2                                                       |

Dividing and multiplying by 1 - alpha rounds differently: potentials agree to a few units in the last place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engram.snn.neurons.firing import Params, State, reset, start
from engram.snn.neurons.scanning import pooled, stack_like

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it still calls torch.jit.script
    from norse.torch import IAFCell, LIFBoxCell, LIFBoxParameters, LIFCell, LIFParameters, LIFRefracCell
    from norse.torch.functional.iaf import IAFFeedForwardState, IAFParameters
    from norse.torch.functional.lif import LIFFeedForwardState
    from norse.torch.functional.lif_box import LIFBoxFeedForwardState
    from norse.torch.functional.lif_refrac import LIFRefracFeedForwardState, LIFRefracParameters

_METHODS = {"superspike": ("super", 1.0), "triangle": ("triangle", 1.0), "sigmoid": ("tanh", 2.0)}
_Step = Callable[[Tensor, Any], tuple[Tensor, Any]]


def scan(drive: Tensor, state: State | None, p: Params) -> tuple[Tensor, State]:
    """drive: [T, B, C, ...] -> (spikes [T, B, C, ...], the state after step T)."""
    before = start(drive[0], p) if state is None else state
    build = {"if": _integrate_fire, "cuba-lif": _with_current}.get(p.neuron, _box)
    step, theirs, ours = build(p, before)
    spikes = []
    for x in drive.unbind(0):
        fired, theirs = step(x.to(before.v.dtype), theirs)
        spikes.append(fired.to(drive.dtype))
    return pooled(stack_like(spikes, drive), p.pool), ours(theirs)


def _same(p: Params) -> dict[str, Any]:
    method, alpha = _METHODS[p.surrogate]
    return {"v_th": p.threshold, "v_reset": torch.zeros(()), "method": method, "alpha": alpha}


def _integrate_fire(p: Params, before: State) -> tuple[_Step, Any, Callable[[Any], State]]:
    cell = IAFCell(IAFParameters(**_same(p)), dt=1.0)
    return cell, IAFFeedForwardState(v=before.v), lambda after: State(after.v)


def _box(p: Params, before: State) -> tuple[_Step, Any, Callable[[Any], State]]:
    rate = 1 - p.decay

    def own_reset(z: Tensor, v: Tensor, _to: Tensor, _threshold: Tensor) -> Tensor:
        return reset(v, z, p)

    parameters = LIFBoxParameters(tau_mem_inv=rate, v_leak=torch.zeros(()), reset_method=own_reset, **_same(p))
    cell = LIFBoxCell(parameters, dt=1.0)

    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return cell(x / rate, state)

    return step, LIFBoxFeedForwardState(v=before.v), lambda after: State(after.v)


def _with_current(p: Params, before: State) -> tuple[_Step, Any, Callable[[Any], State]]:
    rate, beta = 1 - p.decay, p.synaptic_decay
    parameters = LIFParameters(tau_syn_inv=torch.tensor(1 - beta), tau_mem_inv=rate, v_leak=torch.zeros(()), **_same(p))
    assert before.current is not None
    lif = LIFFeedForwardState(v=before.v, i=beta * before.current / rate)
    if before.rest is None:
        cell: Any = LIFCell(parameters, dt=1.0)
        theirs: Any = lif
    else:
        cell = LIFRefracCell(LIFRefracParameters(parameters, torch.tensor(float(p.refractory))), dt=1.0)
        theirs = LIFRefracFeedForwardState(lif, before.rest)

    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return cell(x / rate, state)

    def ours(after: Any) -> State:
        lif = after if before.rest is None else after.lif
        return State(lif.v, lif.i * rate / beta, None, None if before.rest is None else after.rho)

    return step, theirs, ours
