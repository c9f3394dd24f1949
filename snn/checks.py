"""What ``engram doctor`` looks at for spiking networks: the compiler of their kernels, and the engines."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from engram.backbone.contract import Check, Places
from engram.snn.neurons.options import Engine


def compiler(places: Places) -> Iterator[Check]:
    """What `engram.snn.compiled` would compile kernels with, which looks for one as this does."""
    without = "spiking networks run in PyTorch alone, slower"
    remedy = "Install gcc or clang, or set CC."
    found = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        yield Check("C compiler", "note", f"none: {without}", remedy)
        return
    try:
        with tempfile.TemporaryDirectory() as scratch:
            code, shared = Path(scratch) / "one.c", Path(scratch) / "one.so"
            code.write_text("int one(void) { return 1; }\n")
            command = [found, "-O3", "-fPIC", "-shared", str(code), "-o", str(shared)]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            assert ctypes.CDLL(str(shared)).one() == 1
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()[0]
        yield Check("C compiler", "note", f"{found} fails ({said}): {without}", remedy)
        return
    yield Check("C compiler", "ok", f"{found}: kernels of spiking networks (fused engine, simulation) at first use")


def engines(places: Places) -> Iterator[Check]:
    """What runs the neurons of trained networks: ours, and those that are there when a package is."""
    there = [name for name in get_args(Engine) if name == "fused" or find_spec(name)]
    missing = [name for name in get_args(Engine) if name not in there]
    without = f"; not installed: {', '.join(missing)}" if missing else ""
    yield Check("engines", "ok", f"{', '.join(there)}{without}")
