"""Compiles ``scan.c`` at first use and calls it; nothing of torch is linked, only pointers are handed over."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

KINDS = {"if": 0, "lif": 0, "plif": 0, "cuba-lif": 1, "adaptive-lif": 2}
SURROGATES = {"arctan": 0, "fast-sigmoid": 1, "triangle": 2, "sigmoid": 3, "superspike": 4, "gaussian": 5}

_FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
# Tried in this order: compilers differ in what they know.
_TUNING = (("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ())
# OpenMP from the library torch has loaded already, where its symbols are to be seen: two pools of threads would spin
# against each other. Then the compiler's own; then one thread.
_PARALLEL = ((("-fopenmp",), ()), (("-fopenmp",), ("-fopenmp",)), ((), ()))


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
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    source = files("snn.engines").joinpath("scan.c").read_text()
    for tuning in _TUNING:
        for compiling, linking in _PARALLEL:
            flags = [*_FLAGS, *tuning, *compiling, *(f"-D{k.upper()}={int(v)}" for k, v in variant._asdict().items())]
            try:
                return _typed(ctypes.CDLL(str(_built(compiler, source, flags, linking))))
            except (OSError, subprocess.SubprocessError):
                continue
    return None


def _typed(kernel: ctypes.CDLL) -> ctypes.CDLL:
    for function in (kernel.scan_forward, kernel.scan_backward):
        function.argtypes, function.restype = [ctypes.POINTER(Layer)], None
    return kernel


def _built(compiler: str, source: str, flags: list[str], linking: tuple[str, ...]) -> Path:
    """Path of the shared object. It appears by an atomic rename: whoever compiles at the same time does the same."""
    about = "\n".join((source, *flags, "|", *linking, _version(compiler), _processor()))
    path = cache_folder() / f"scan-{hashlib.sha256(about.encode()).hexdigest()[:24]}.so"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        code, thing, shared = (Path(scratch) / name for name in ("scan.c", "scan.o", "scan.so"))
        code.write_text(source)
        _run([compiler, *flags, "-c", str(code), "-o", str(thing)])
        _run([compiler, "-shared", str(thing), "-o", str(shared), *linking])
        shared.replace(path)
    return path


def _run(command: list[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    return done.stdout


@cache
def _version(compiler: str) -> str:
    return _run([compiler, "--version"])


@cache
def _processor() -> str:
    """What "native" means here: a home folder may be shared by machines that differ."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    about = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    return "\n".join((platform.machine(), platform.processor(), *about))


@cache
def cache_folder() -> Path:
    """The user's cache, or a temporary folder where that cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "engram" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="engram-kernels-"))
