"""Our engine: one fused pass over all steps forward and one backward.

On a CPU that is the kernel in ``scan.c``, compiled at first use; without a compiler, and in fp64, it is the eager scan,
which gives the same spikes. On CUDA it is the eager scan under torch.compile, a few steps at a time.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snn.cells.firing import Params, State
from snn.cells.scanning import eager_scan, inverse, memory_order
from snn.engines import native

SCRATCH = 2**18
"""Bytes a thread may use for what happened to its block of neurons: a part of the second-level cache."""
BLOCKS = (64, 1024)
"""Fewest and most neurons in a block."""
COMPILED_STEPS = 32
"""Steps in one compiled graph on CUDA, which are unrolled."""


def scan(drive: Tensor, state: State | None, p: Params) -> tuple[Tensor, State]:
    """drive: [T, B, C, ...] -> (spikes [T, B, C, ...] in its type and layout, the state after step T)."""
    if drive.is_cuda:
        return _compiled_scan(drive, state, p)
    if drive.device.type != "cpu" or drive.dtype not in (torch.float32, torch.bfloat16):
        return eager_scan(drive, state, p)
    if native.library(_variant(drive, p)) is None:
        return eager_scan(drive, state, p)
    before = (None,) * len(State._fields) if state is None else state
    spikes, *after = _Scan.apply(drive, p.decay, p, *before)  # type: ignore[misc]
    return spikes, State(*after)


def _variant(drive: Tensor, p: Params) -> native.Variant:
    return native.Variant(
        kind=native.KINDS[p.neuron],
        hard=p.reset == "hard",
        resting=p.refractory > 0,
        bf16=drive.dtype == torch.bfloat16,
        surrogate=native.SURROGATES[p.surrogate],
    )


class _Scan(torch.autograd.Function):
    """(drive, decay, params, v, current, adaptation, rest) -> (spikes, v, current, adaptation, rest)."""

    @staticmethod
    def forward(ctx: Any, drive: Tensor, decay: Tensor, p: Params, *state: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.order, ctx.shape, ctx.p, ctx.variant = memory_order(drive), drive.shape, p, _variant(drive, p)
        rows = _rows(drive, ctx.order)
        before = [None if part is None else _row(part, ctx.order) for part in state]
        threshold = _threshold(p, drive, ctx.order)
        wanted = (True, p.neuron == "cuba-lif", p.neuron == "adaptive-lif", p.refractory > 0)
        spikes = torch.empty(rows.shape, dtype=drive.dtype)
        after = [torch.empty(rows.shape[1:]) if want else None for want in wanted]
        call = _call(rows, threshold, float(decay), p, before)
        _point(call, ("spikes", "v", "current", "adapted", "rest"), (spikes, *after))
        kernel = native.library(ctx.variant)
        assert kernel is not None
        kernel.scan_forward(call)
        ctx.save_for_backward(rows, decay, threshold, *before)
        ctx.set_materialize_grads(False)
        back = inverse(ctx.order)
        results = [None if part is None else part.permute(_inner(back)) for part in after]
        if results[3] is not None:
            ctx.mark_non_differentiable(results[3])
        return spikes.permute(back), *results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        rows, decay, threshold, *before = ctx.saved_tensors
        p: Params = ctx.p
        call = _call(rows, threshold, float(decay), p, before)
        of_spikes = None if grads[0] is None else _rows(grads[0].to(rows.dtype), ctx.order, dense=True)
        of_after = [None if grad is None else _row(grad, ctx.order) for grad in grads[1:4]]
        of_drive = torch.empty(rows.shape, dtype=rows.dtype)
        needed = ctx.needs_input_grad
        of_before = [torch.empty(rows.shape[1:]) if needed[3 + i] else None for i in range(3)]
        blocks = -(-call.neurons // call.block)
        of_decay = torch.empty(blocks, dtype=torch.float64) if needed[1] else None
        _point(call, ("grad_spikes", "grad_v", "grad_current", "grad_adapted"), (of_spikes, *of_after))
        _point(call, ("grad_drive", "grad_v0", "grad_current0", "grad_adapted0"), (of_drive, *of_before))
        _point(call, ("grad_decay",), (of_decay,))
        kernel = native.library(ctx.variant)
        assert kernel is not None
        kernel.scan_backward(call)
        back = inverse(ctx.order)
        decay_grad = None if of_decay is None else of_decay.sum().to(decay.dtype).view(decay.shape)
        state_grads = [None if part is None else part.permute(_inner(back)) for part in of_before]
        return of_drive.permute(back), decay_grad, None, *state_grads, None


def _inner(order: list[int]) -> list[int]:
    """The order of the axes of one step, given that of all steps."""
    return [axis - 1 for axis in order[1:]]


def _rows(timed: Tensor, order: list[int], dense: bool = False) -> Tensor:
    """[T, B, C, ...] as it lies in memory, each step without gaps; steps may be apart, or one and the same."""
    rows = timed.detach().permute(order)
    return rows if rows[0].is_contiguous() and not dense else rows.contiguous()


def _row(part: Tensor, order: list[int]) -> Tensor:
    return part.detach().permute(_inner(order)).to(torch.float32).contiguous()


def _threshold(p: Params, drive: Tensor, order: list[int]) -> Tensor:
    """The thresholds of as many neurons as it takes until they repeat, in the order of memory."""
    if p.threshold.numel() == 1:
        return p.threshold.detach().reshape(1).to(torch.float32)
    shape = list(drive.shape[1:])
    if order[1] == 1:  # images one after the other: those of one are enough
        shape[0] = 1
    return _row(p.threshold.expand(shape), order)


def _call(rows: Tensor, threshold: Tensor, decay: float, p: Params, before: list[Tensor | None]) -> native.Layer:
    steps, neurons = rows.shape[0], rows[0].numel()
    fitting = SCRATCH // (4 * steps) // 16 * 16
    call = native.Layer(
        steps=steps,
        neurons=neurons,
        block=min(max(fitting, BLOCKS[0]), BLOCKS[1]),
        drive_stride=rows.stride(0),
        period=threshold.numel(),
        threads=torch.get_num_threads(),
        decay=decay,
        synaptic_decay=p.synaptic_decay,
        adaptation=p.adaptation,
        adaptation_decay=p.adaptation_decay,
        refractory=p.refractory,
        attached=0.0 if p.detach_reset else 1.0,
        slope=p.slope,
    )
    _point(call, ("threshold", "drive"), (threshold, rows))
    _point(call, ("v0", "current0", "adapted0", "rest0"), before)
    return call


def _point(
    call: native.Layer, names: tuple[str, ...], tensors: tuple[Tensor | None, ...] | list[Tensor | None]
) -> None:
    """Set the pointers; whoever calls keeps the tensors alive."""
    for name, tensor in zip(names, tensors, strict=True):
        setattr(call, name, None if tensor is None else tensor.data_ptr())


@cache
def _compiled() -> Any:
    return torch.compile(eager_scan, dynamic=False)


def _compiled_scan(drive: Tensor, state: State | None, p: Params) -> tuple[Tensor, State]:
    spikes = []
    for part in drive.split(COMPILED_STEPS):
        fired, state = _compiled()(part, state, p)
        spikes.append(fired)
    assert state is not None
    return (spikes[0] if len(spikes) == 1 else torch.cat(spikes)), state
