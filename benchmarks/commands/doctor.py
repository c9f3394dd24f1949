"""``engram doctor``: is this machine ready, and if not, what to do. Every row is a check that really ran."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from engram.backbone.contract import KINDS, Check, Places
from engram.backbone.errors import must
from engram.backbone.registry import Registry, resolve
from engram.benchmarks.commands.flags import Doctoring
from engram.benchmarks.given import Given
from engram.benchmarks.records.stored import Damaged
from engram.benchmarks.records.trials import Record, read_sweep, sweep_names, trial_names

FREE_GIB = 1.0
OFFERED = (*KINDS, "commands", "checks", "installs")


def show(given: Given[Doctoring]) -> int:
    """Run the checks of all plugins and print a row for each finding; 1 when one is bad, else 0.

    Raises:
        UserError: no plugin installs what ``--install`` names, or something has to be there first.
        TrialError: it could not be installed.
    """
    registry = given.registry
    if given.flags.install is not None:
        install(registry, given.flags.install)
    places = Places(out=given.flags.out, data=Path(os.environ.get("ENGRAM_DATA") or "data"))
    checks = [
        row
        for plugin in registry.plugins.values()
        for name, where in plugin.checks.items()
        for row in _guarded(name, where, places)
    ]
    checks += plugins(registry)
    if given.flags.json:
        print(json.dumps({"checks": [asdict(check) for check in checks]}))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            remedy = f"  -> {check.remedy}" if check.remedy else ""
            print(f"{check.state:<4}  {check.name:<{width}}  {check.found}{remedy}")
    return 1 if any(check.state == "bad" for check in checks) else 0


def install(registry: Registry, name: str) -> None:
    """Make what a plugin installs under a name, and say what is being done."""
    known = {name: where for plugin in registry.plugins.values() for name, where in plugin.installs.items()}
    if name not in known:
        raise must("--install", f"one of {', '.join(known) or 'nothing'}", name, "Give one of these.")
    print(resolve(known[name])(lambda line: print(f"{name}: {line} ...", file=sys.stderr)), file=sys.stderr)


def _guarded(name: str, where: str, places: Places) -> Iterator[Check]:
    try:
        yield from resolve(where)(places)
    except Exception as error:  # a check that cannot even run is a finding, not a crash
        remedy = "Reinstall engram, or the plugin that brings this check."
        yield Check(name, "bad", f"{type(error).__name__}: {error}".splitlines()[0], remedy)


def python(places: Places) -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("processor", "ok", f"{cores} cores")


def output_folder(places: Places) -> Iterator[Check]:
    out = places.out
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


def store(places: Places) -> Iterator[Check]:
    try:
        yield Check("mlflow", "ok", version("mlflow"))
    except PackageNotFoundError:
        yield Check("mlflow", "bad", "not installed", "Run make demo.")
    database = places.out / "mlflow.db"
    if not database.exists():
        yield Check("tracking store", "ok", f"{database} (will be made)")
        return
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        runs = connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0]
    state: Literal["ok", "note"] = "ok" if mode == "wal" else "note"
    yield Check("tracking store", state, f"{database}, {runs} runs, journal mode {mode}")


def trials(places: Places) -> Iterator[Check]:
    """Whether all files of all trials are what was written."""
    out = places.out
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


def plugins(registry: Registry) -> Iterator[Check]:
    """What every plugin offers, and why the broken ones could not be loaded."""
    for name, plugin in registry.plugins.items():
        offers = [_counted(kind, len(held)) for kind in OFFERED if (held := getattr(plugin, kind))]
        yield Check(f"plugin {name}", "ok", ", ".join(offers) or "nothing")
    for name, why in registry.broken.items():
        yield Check(f"plugin {name}", "bad", why, "Mend or uninstall it; the others work without it.")


def _counted(kind: str, count: int) -> str:
    """How many things of a kind, in words.

    >>> _counted("strategies", 1), _counted("backbones", 2)
    ('1 strategy', '2 backbones')
    """
    one = f"{kind[:-3]}y" if kind.endswith("ies") else kind[:-1]
    return f"{count} {one if count == 1 else kind}"
