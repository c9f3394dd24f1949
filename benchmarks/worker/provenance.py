"""Where a trial's numbers come from: code, packages, machine, command and data."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import engram
from engram.backbone.brought import given
from engram.backbone.contract import ExperimentConfig, Kind, ProvidedBy, Scalar
from engram.backbone.errors import must
from engram.backbone.options.spelling import spell
from engram.backbone.registry import Registry
from engram.benchmarks.planning.config import every_value
from engram.benchmarks.planning.config import used as used_by
from engram.benchmarks.records.stored import held, write_json

PACKAGES = ("engram", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "safetensors", "mlflow")


def environment(argv: list[str], used: Iterable[str] = ()) -> dict[str, Any]:
    """What of this process may matter to a result; ``used``: distributions beside those of every trial."""
    return {
        "git": dict(code_now()),
        "code": {code.name: code.sha256 for code in given()},
        "packages": {name: _version(name) for name in dict.fromkeys((*PACKAGES, *used))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "argv": redacted(argv),
    }


def distributions(registry: Registry, experiment: str, config: ExperimentConfig) -> list[str]:
    """The distributions that provide what a trial works with: plugins, and what these need for what was chosen."""
    found: dict[str, None] = {}
    uses: list[tuple[Kind, str]] = [("experiments", experiment), *used_by(registry, config)]
    for kind, name in uses:
        plugin = registry.distributions.get(registry.plugin_of(kind, name) or "")
        found |= dict.fromkeys([plugin] if plugin else []) | dict.fromkeys(registry.entry(kind, name).distributions)
    for option, value in every_value(registry, config):
        for mark in option.metadata:
            if isinstance(mark, ProvidedBy):
                found |= dict.fromkeys(who for what, who in mark.distributions if what == value)
    return list(found)


@cache
def code_now() -> Mapping[str, Any]:
    """`git` of our own code. Asked once, for what this process has imported stays as it is."""
    return git(Path(engram.__file__).parent)


def git(code: Path) -> dict[str, Any]:
    """Commit of the code and whether it was changed since; empty for an installed copy, which has a version instead."""

    def ask(*words: str) -> str | None:
        line = ["git", "-C", str(code), *words]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if ask("ls-files", "--error-unmatch", "__init__.py") is None:  # a virtual environment inside somebody's repository
        return {}
    commit, changes = ask("rev-parse", "HEAD"), ask("status", "--porcelain")
    return {"commit": commit, "dirty": bool(changes)} if commit else {}


def redacted(argv: list[str]) -> list[str]:
    """The command without the tracking address, which may hold a password.

    >>> redacted(["run", "--tracking-uri", "http://me:secret@host", "--seed=1", "--tracking_uri=http://me:secret@host"])
    ['run', '--tracking-uri', '...', '--seed=1', '--tracking_uri=...']
    """
    words, hide = [], False
    for word in argv:
        head, equals, _ = word.partition("=")
        named = head.startswith("--") and spell(head) == "tracking-uri"
        words.append("..." if hide else f"{head}=..." if named and equals else word)
        hide = named and not equals and not hide
    return words


def begin(path: Path, argv: list[str], used: Iterable[str] = ()) -> None:
    """Write provenance.json for a new trial, or note one more resume in an old one."""
    before = held(path)
    now = environment(argv, used)
    if before:
        resumes = [*before.get("resumes", []), {key: now[key] for key in ("git", "platform", "argv")}]
        write_json(path, {**before, "resumes": resumes}, durable=True)
    else:
        write_json(path, {**now, "facts": {}}, durable=True)


def state_facts(path: Path, facts: Mapping[str, Scalar]) -> None:
    """Add facts about the inputs.

    Raises:
        UserError: the trial was begun with other inputs.
    """
    before = held(path)
    known = before.get("facts", {})
    for name, value in facts.items():
        if name in known and known[name] != value:
            step = f"Bring the old data back, or delete {path.parent} to start anew."
            raise must(name, f"what the trial was begun with ({known[name]})", value, step)
    write_json(path, {**before, "facts": {**known, **facts}}, durable=True)


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or sys.platform
