"""The fused scan in ``scan.c``, compiled at first use for each combination of what is decided when compiling."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import NamedTuple

from engram.snn.compiled import compiled

KINDS = {"if": 0, "lif": 0, "plif": 0, "cuba-lif": 1, "adaptive-lif": 2}
SURROGATES = {"arctan": 0, "fast-sigmoid": 1, "triangle": 2, "sigmoid": 3, "superspike": 4, "gaussian": 5}

# Contraction to fused multiply-add would make spikes differ from those of the step functions.
_EXACT = "-ffp-contract=off"


class Variant(NamedTuple):
    """What is decided when compiling; everything else is an argument."""

    kind: int
    hard: bool
    resting: bool
    learned: bool
    bf16: bool
    surrogate: int
    pool: int


class Layer(ctypes.Structure):
    """The arguments of one call; must match ``layer`` in scan.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "neurons", "line", "channels")),
        *((name, ctypes.c_int64) for name in ("block", "drive_stride", "period", "threads")),
        *((name, ctypes.c_float) for name in ("decay", "synaptic_decay", "adaptation", "adaptation_decay")),
        *((name, ctypes.c_float) for name in ("refractory", "attached", "slope", "unused")),
        *((name, ctypes.c_void_p) for name in ("threshold", "drive", "v0", "current0", "adapted0", "rest0")),
        *((name, ctypes.c_void_p) for name in ("spikes", "v", "current", "adapted", "rest")),
        *((name, ctypes.c_void_p) for name in ("grad_spikes", "grad_v", "grad_current", "grad_adapted")),
        *((name, ctypes.c_void_p) for name in ("grad_drive", "grad_v0", "grad_current0", "grad_adapted0")),
        ("grad_decay", ctypes.c_void_p),
    )


@cache
def library(variant: Variant) -> ctypes.CDLL | None:
    """The compiled kernel, from the cache where it is there; None where nothing compiles."""
    chosen = (f"-D{name.upper()}={int(value)}" for name, value in variant._asdict().items())
    kernel = compiled("engram.snn.engines", "scan.c", (_EXACT, *chosen))
    return None if kernel is None else _typed(kernel)


def _typed(kernel: ctypes.CDLL) -> ctypes.CDLL:
    for function in (kernel.scan_forward, kernel.scan_backward):
        function.argtypes, function.restype = [ctypes.POINTER(Layer)], None
    return kernel
