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

from engram.snn.engines import native
from engram.snn.neurons.firing import Params, State
from engram.snn.neurons.scanning import eager_scan, inverse, memory_order, pooled

SCRATCH = 2**14
"""Bytes a thread may use for what happened to its block of neurons: a third of a small first-level cache."""
FEWEST = 128
"""Neurons in a block, however many the steps."""
LONGEST_LINE = 1024
"""Neurons in a line that are pooled as one block."""
COMPILED_STEPS = 16
"""Steps in one compiled graph on CUDA, which are unrolled."""


def scan(drive: Tensor, state: State | None, p: Params) -> tuple[Tensor, State]:
    """drive: [T, B, C, ...] -> (spikes [T, B, C, ...] in its type and layout, the state after step T)."""
    if drive.is_cuda:
        return _compiled_scan(drive, state, p)
    if drive.device.type != "cpu" or drive.dtype not in (torch.float32, torch.bfloat16):
        return eager_scan(drive, state, p)
    pool = p.pool if _poolable(drive, p.pool) else 1
    variant = _variant(drive, p, pool)
    if native.library(variant) is None:
        return eager_scan(drive, state, p)
    before = (None,) * len(State._fields) if state is None else state
    spikes, *after = _Scan.apply(drive, p.decay, p, variant, *before)  # type: ignore[misc]
    return pooled(spikes, p.pool // pool), State(*after)


def _poolable(drive: Tensor, pool: int) -> bool:
    """Whether the kernel can pool: the windows cover the pictures, and these lie in memory line by line."""
    return pool > 1 and not (drive.shape[-1] % pool or drive.shape[-2] % pool) and _lines(drive) is not None


def _lines(drive: Tensor) -> tuple[int, int] | None:
    """(neurons in a line of pixels, channels of a pixel that lie together) of [T, B, C, H, W]."""
    channels, width = drive.shape[2], drive.shape[4]
    order = memory_order(drive)
    if order == [0, 1, 3, 4, 2]:
        return width * channels, channels
    return (width, 1) if order == [0, 1, 2, 3, 4] else None


def _variant(drive: Tensor, p: Params, pool: int) -> native.Variant:
    return native.Variant(
        kind=native.KINDS[p.neuron],
        hard=p.reset == "hard",
        resting=p.refractory > 0,
        learned=p.decay.requires_grad,
        bf16=drive.dtype == torch.bfloat16,
        surrogate=native.SURROGATES[p.surrogate],
        pool=pool,
    )


class _Scan(torch.autograd.Function):
    """(drive, decay, params, variant, v, current, adaptation, rest) -> (spikes, v, current, adaptation, rest)."""

    @staticmethod
    def forward(
        ctx: Any, drive: Tensor, decay: Tensor, p: Params, variant: native.Variant, *state: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ctx.order, ctx.p, ctx.variant = memory_order(drive), p, variant
        ctx.lines = (_lines(drive) if variant.pool > 1 else None) or (drive[0].numel(), 1)
        rows = _rows(drive, ctx.order)
        before = [None if part is None else _row(part, ctx.order) for part in state]
        threshold = _threshold(p, drive, ctx.order)
        wanted = (True, p.neuron == "cuba-lif", p.neuron == "adaptive-lif", p.refractory > 0)
        shape = [size // variant.pool if axis > 2 else size for axis, size in enumerate(drive.shape)]
        spikes = torch.empty([shape[axis] for axis in ctx.order], dtype=drive.dtype)
        after = [torch.empty(rows.shape[1:]) if want else None for want in wanted]
        call = _call(rows, threshold, float(decay), p, before, ctx.lines, variant.pool)
        _point(call, ("spikes", "v", "current", "adapted", "rest"), (spikes, *after))
        kernel = native.library(variant)
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
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, decay, threshold, *before = ctx.saved_tensors
        p: Params = ctx.p
        call = _call(rows, threshold, float(decay), p, before, ctx.lines, ctx.variant.pool)
        of_spikes = None if grads[0] is None else _rows(grads[0].to(rows.dtype), ctx.order, dense=True)
        of_after = [None if grad is None else _row(grad, ctx.order) for grad in grads[1:4]]
        of_drive = torch.empty(rows.shape, dtype=rows.dtype)
        needed = ctx.needs_input_grad
        of_before = [torch.empty(rows.shape[1:]) if needed[4 + i] else None for i in range(3)]
        blocks = call.neurons // call.line // ctx.variant.pool * -(-call.line // call.block)
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
        return of_drive.permute(back), decay_grad, None, None, *state_grads, None


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


def _block(steps: int, line: int, channels: int, pool: int) -> int:
    """Neurons of a line that one thread takes through all steps at a time, so that its scratch stays in the cache."""
    if pool > 1:
        whole = pool * channels
        return line if line <= LONGEST_LINE else max(LONGEST_LINE // whole, 1) * whole
    return max(SCRATCH // (4 * steps) // 16 * 16, FEWEST)


def _call(
    rows: Tensor,
    threshold: Tensor,
    decay: float,
    p: Params,
    before: list[Tensor | None],
    lines: tuple[int, int],
    pool: int,
) -> native.Layer:
    steps, (line, channels) = rows.shape[0], lines
    call = native.Layer(
        steps=steps,
        neurons=rows[0].numel(),
        line=line,
        channels=channels,
        block=_block(steps, line, channels, pool),
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
    return torch.compile(_plain_scan, dynamic=False)


def _plain_scan(drive: Tensor, before: Any, p: Params) -> tuple[Tensor, Any]:
    """The eager scan between plain tuples: torch 2.11 cannot compile a function that returns a NamedTuple of ours."""
    spikes, state = eager_scan(drive, None if before is None else State(*before), p)
    return spikes, (state.v, state.current, state.adaptation, state.rest)


def _compiled_scan(drive: Tensor, state: State | None, p: Params) -> tuple[Tensor, State]:
    spikes: list[Tensor] = []
    after: Any = None if state is None else tuple(state)
    for part in drive.split(COMPILED_STEPS):
        fired, after = _compiled()(part, after, p)
        spikes.append(fired)
    return (spikes[0] if len(spikes) == 1 else torch.cat(spikes)), State(*after)
