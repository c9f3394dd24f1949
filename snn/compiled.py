"""Compiles C at first use and keeps the result; nothing of torch is linked, only pointers are handed over."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from engram.backbone.caching import kept_in

_FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
# Tried in this order: compilers differ in what they know.
_TUNING = (("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ())
# OpenMP from the library torch has loaded already, where its symbols are to be seen: two pools of threads would spin
# against each other. Then the compiler's own; then one thread.
_PARALLEL = ((("-fopenmp",), ()), (("-fopenmp",), ("-fopenmp",)), ((), ()))


def compiled(package: str, name: str, options: Sequence[str] = ()) -> ctypes.CDLL | None:
    """A C file of a package as a library, from the cache where it is there; None where nothing compiles.

    Args:
        package, name: where the file is.
        options: for the compiler, besides those for speed.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    source = files(package).joinpath(name).read_text()
    for tuning in _TUNING:
        for compiling, linking in _PARALLEL:
            flags = [*_FLAGS, *options, *tuning, *compiling]
            try:
                return ctypes.CDLL(str(_built(compiler, Path(name).stem, source, flags, linking)))
            except (OSError, subprocess.SubprocessError):
                continue
    return None


def _built(compiler: str, stem: str, source: str, flags: list[str], linking: tuple[str, ...]) -> Path:
    """Path of the shared object. It appears by an atomic rename: whoever compiles at the same time does the same."""
    about = "\n".join((source, *flags, "|", *linking, _version(compiler), _processor()))
    path = cache_folder() / f"{stem}-{hashlib.sha256(about.encode()).hexdigest()[:24]}.so"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        code, thing, shared = (Path(scratch) / f"{stem}.{ending}" for ending in ("c", "o", "so"))
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
    return kept_in("kernels") or Path(tempfile.mkdtemp(prefix="engram-kernels-"))
