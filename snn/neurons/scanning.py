"""Running a step function over all steps, one after another: the reference every engine is held against."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.snn.neurons.adaptive import adaptive_lif_step
from engram.snn.neurons.current import cuba_lif_step
from engram.snn.neurons.firing import Params, State, Step, start
from engram.snn.neurons.integrate_fire import if_step
from engram.snn.neurons.lif import lif_step
from engram.snn.neurons.options import Neuron

STEPS: Mapping[Neuron, Step] = {
    "if": if_step,
    "lif": lif_step,
    "plif": lif_step,
    "cuba-lif": cuba_lif_step,
    "adaptive-lif": adaptive_lif_step,
}


def eager_scan(drive: Tensor, state: State | None, p: Params) -> tuple[Tensor, State]:
    """Step by step through autograd.

    Args:
        drive: [T, B, C, ...].
        state: None for the state of rest.

    Returns: (spikes in {0, 1}: [T, B, C, ...] in the type and memory layout of ``drive``, or their means where
    ``p.pool`` > 1; the state after step T).
    """
    step = STEPS[p.neuron]
    state = start(drive[0], p) if state is None else state
    spikes = []
    for x in drive.unbind(0):
        fired, state = step(x, state, p)
        spikes.append(fired.to(drive.dtype))
    return pooled(stack_like(spikes, drive), p.pool), state


def pooled(spikes: Tensor, pool: int) -> Tensor:
    """spikes: [T, B, C, H, W] -> their means over windows of pool x pool, [T, B, C, H // pool, W // pool]."""
    if pool == 1:
        return spikes
    return F.avg_pool2d(spikes.flatten(0, 1), pool).unflatten(0, spikes.shape[:2])


def stack_like(steps: list[Tensor], drive: Tensor) -> Tensor:
    """steps: T of [B, C, ...] -> [T, B, C, ...] in the memory layout of ``drive``, which torch.stack would not keep."""
    order = memory_order(drive)
    physical = torch.stack([step.permute([axis - 1 for axis in order[1:]]) for step in steps])
    return physical.permute(inverse(order))


def memory_order(drive: Tensor) -> list[int]:
    """The axes of [T, B, C, ...] as they lie in memory, slowest first, but time always the first."""
    one_step = drive[0]
    inner = sorted(range(one_step.ndim), key=lambda axis: (one_step.stride(axis), -axis), reverse=True)
    return [0, *(axis + 1 for axis in inner)]


def inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)
