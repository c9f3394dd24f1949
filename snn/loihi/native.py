"""All steps of integrate-and-fire neurons as one call of C (``neurons.c``), compiled at first use."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from engram.snn.compiled import compiled
from engram.snn.loihi.arithmetic import Cells

INTEGRATOR = 2**31 - 1
"""A threshold that no potential exceeds."""


class _Neurons(ctypes.Structure):
    """The arguments of ``lif``; must match ``neurons`` in neurons.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "neurons", "stride", "period", "threads")),
        *((name, ctypes.c_int32) for name in ("keep_u", "keep_v", "threshold", "back", "hard", "refractory", "whole")),
        *((name, ctypes.c_void_p) for name in ("drive", "bias", "u", "v", "rest", "spikes", "count")),
        *((name, ctypes.c_void_p) for name in ("every_u", "every_v")),
    )


class _Extremes(ctypes.Structure):
    """What ``lif`` finds; must match ``extremes`` in neurons.c."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("largest_u", "largest_v", "wrapped", "clipped"))


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None where nothing compiles."""
    kernel = compiled("engram.snn.loihi", "neurons.c")
    if kernel is not None:
        kernel.lif.argtypes, kernel.lif.restype = [ctypes.POINTER(_Neurons), ctypes.POINTER(_Extremes)], None
    return kernel


def lif(
    drive: Tensor,
    u: Tensor,
    v: Tensor,
    rest: Tensor | None,
    cells: Cells,
    bias: Tensor,
    every: tuple[Tensor | None, Tensor | None],
) -> tuple[Tensor, Tensor, tuple[int, int, int, int]]:
    """Run all steps. Tensors are on the CPU, their axes in the order of memory.

    Args:
        drive: [T, neurons] float32 or int32, each step without gaps; steps may be one and the same.
        u, v, rest: [neurons] int32, changed in place to the state after the last step.
        cells: parameters, whose bias is given in
        bias: [period] int32: neuron i has that of i modulo period.
        every: [T, neurons] int32 for u and v at every step, where they are wanted.

    Returns: ([T, neurons] uint8 spikes, [neurons] int32 how many of each, (largest |u|, |v|, wraps, clips)).
    """
    spikes = torch.empty(drive.shape, dtype=torch.uint8)
    count = torch.empty(drive.shape[1], dtype=torch.int32)
    call = _Neurons(
        steps=len(drive),
        neurons=drive.shape[1],
        stride=drive.stride(0),
        period=len(bias),
        threads=torch.get_num_threads(),
        keep_u=cells.keep_u,
        keep_v=cells.keep_v,
        threshold=INTEGRATOR if cells.threshold is None else cells.threshold,
        back=cells.back or 0,
        hard=cells.back is None,
        refractory=cells.refractory,
        whole=drive.dtype == torch.int32,
        drive=drive.data_ptr(),
    )
    given = {"bias": bias, "u": u, "v": v, "rest": rest, "spikes": spikes, "count": count}
    for name, tensor in (given | dict(zip(("every_u", "every_v"), every, strict=True))).items():
        setattr(call, name, None if tensor is None else tensor.data_ptr())
    kernel, found = library(), _Extremes()
    assert kernel is not None
    kernel.lif(call, found)
    return spikes, count, (found.largest_u, found.largest_v, found.wrapped, found.clipped)
