"""``engram doctor``: is this machine ready, and if not, what to do. Every row is a check that really ran."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from engram.backbone.contract import KINDS, Kind
from engram.backbone.registry import Registry
from engram.benchmarks.records.stored import Damaged
from engram.benchmarks.records.trials import Record, read_sweep, sweep_names, trial_names

FREE_GIB = 1.0


@dataclass(frozen=True)
class Check:
    """One row: ``ok``, ``note`` (works, but worth knowing) or ``bad`` (engram cannot work; ``remedy`` mends it)."""

    name: str
    state: Literal["ok", "note", "bad"]
    found: str
    remedy: str = ""


def doctor(out: Path, as_json: bool = False) -> int:
    """Run all checks and print them. Returns 1 when one is bad, else 0."""
    checks = [
        check
        for group in (_python, _torch, _compiler, _store, _trials, _plugins, _data)
        for check in _guarded(group, out)
    ]
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in checks]}))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            remedy = f"  -> {check.remedy}" if check.remedy else ""
            print(f"{check.state:<4}  {check.name:<{width}}  {check.found}{remedy}")
    return 1 if any(check.state == "bad" for check in checks) else 0


def _guarded(group: Callable[[Path], Iterator[Check]], out: Path) -> Iterator[Check]:
    try:
        yield from group(out)
    except Exception as error:  # a check that cannot even run is a finding, not a crash
        yield Check(group.__name__.strip("_"), "bad", f"{type(error).__name__}: {error}", "Run make test to reinstall.")


def _python(out: Path) -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("processor", "ok", f"{cores} cores")
    parent = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        yield Check("output folder", "bad", f"{out}: {error.strerror}", "Choose another with --out DIR.")
        return
    free = shutil.disk_usage(parent).free / 2**30
    state: Literal["ok", "note"] = "ok" if free >= FREE_GIB else "note"
    yield Check("output folder", state, f"{out} is writable, {free:.0f} GiB free")


def _torch(out: Path) -> Iterator[Check]:
    """In a process of its own: a broken pair of torch and torchvision must not take the doctor down."""
    probe = (
        "import json, torch, torchvision; from engram.backbone.hardware import has_bf16;"
        "cuda = torch.cuda.is_available();"
        "print(json.dumps([torch.__version__, torchvision.__version__, torch.get_num_threads(), has_bf16('cpu'),"
        "torch.cuda.get_device_name(0) if cuda else None]))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        remedy = "Install torch and torchvision of the same release from the same index (see PIP_ARGS in the README)."
        yield Check("torch", "bad", last, remedy)
        return
    torch, vision, threads, bf16, gpu = json.loads(done.stdout)
    yield Check("torch", "ok", f"{torch}, torchvision {vision}, {threads} threads")
    slower = "no (no AVX512-BF16): training uses fp32, 2 to 3 times slower on convolutions"
    yield Check("bf16 on the CPU", "ok" if bf16 else "note", "yes" if bf16 else slower)
    yield Check("GPU", "ok" if gpu else "note", gpu or "none: everything runs on the CPU")


def _compiler(out: Path) -> Iterator[Check]:
    """What training and simulating spiking networks compile their kernels with (snn/compiled.py looks as this does)."""
    without = "spiking networks run in PyTorch alone, slower"
    remedy = "Install gcc or clang, or set CC."
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        yield Check("C compiler", "note", f"none: {without}", remedy)
        return
    try:
        with tempfile.TemporaryDirectory() as scratch:
            code, shared = Path(scratch) / "one.c", Path(scratch) / "one.so"
            code.write_text("int one(void) { return 1; }\n")
            command = [compiler, "-O3", "-fPIC", "-shared", str(code), "-o", str(shared)]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            assert ctypes.CDLL(str(shared)).one() == 1
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()[0]
        yield Check("C compiler", "note", f"{compiler} fails ({said}): {without}", remedy)
        return
    yield Check("C compiler", "ok", f"{compiler}: kernels of spiking networks (fused engine, simulation) at first use")


def _store(out: Path) -> Iterator[Check]:
    try:
        yield Check("mlflow", "ok", version("mlflow"))
    except PackageNotFoundError:
        yield Check("mlflow", "bad", "not installed", "Run make demo.")
    database = out / "mlflow.db"
    if not database.exists():
        yield Check("tracking store", "ok", f"{database} (will be made)")
        return
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        runs = connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0]
    state: Literal["ok", "note"] = "ok" if mode == "wal" else "note"
    yield Check("tracking store", state, f"{database}, {runs} runs, journal mode {mode}")


def _trials(out: Path) -> Iterator[Check]:
    """Whether all files of all trials are what was written."""
    trials = trial_names(out)
    damaged = {name: why for name in trials if (why := Record(out / "trials" / name).damage)}
    for name, why in damaged.items():
        yield Check(f"trial {name}", "note", why, "Give the command that made it: it is done again.")
    for name in sweep_names(out):
        try:
            read_sweep(out, name)
        except Damaged as error:
            yield Check(f"sweep {name}", "note", f"plan.json is damaged ({error.why})", "Sweep again.")
    yield Check("trials", "ok", f"{len(trials) - len(damaged)} of {len(trials)} in {out} are whole")


def _plugins(out: Path) -> Iterator[Check]:
    registry = Registry.discover()
    for name, plugin in registry.plugins.items():
        offers = [_counted(kind, len(getattr(plugin, kind))) for kind in KINDS if getattr(plugin, kind)]
        yield Check(f"plugin {name}", "ok", ", ".join(offers) or "nothing")
    for name, why in registry.broken.items():
        yield Check(f"plugin {name}", "bad", why, "Mend or uninstall it; the others work without it.")


def _counted(kind: Kind, count: int) -> str:
    """How many things of a kind, in words.

    >>> _counted("strategies", 1), _counted("backbones", 2)
    ('1 strategy', '2 backbones')
    """
    one = f"{kind[:-3]}y" if kind.endswith("ies") else kind[:-1]
    return f"{count} {one if count == 1 else kind}"


def _data(out: Path) -> Iterator[Check]:
    root = Path(os.environ.get("ENGRAM_DATA", "data"))
    places = {
        "mnist": ["MNIST/raw"],
        "cifar10": ["cifar10", "cifar-10-batches-py"],
        "omniglot": ["omniglot-py", "omniglot-small"],
        "tonic:nmnist": ["NMNIST"],
        "tonic:dvs128-gesture": ["DVSGesture"],
        "tonic:shd": ["SHD"],
    }
    always = "digits, moving-shapes (always there)"
    there = [name for name, folders in places.items() if any((root / folder).is_dir() for folder in folders)]
    found = f"{always}; {', '.join(there)} in {root}" if there else f"{always}; none in {root}"
    yield Check("data sets", "ok" if there else "note", found, "" if there else "Pass --data-root, or --download.")
