"""Trial folders as the runner writes them, without running anything."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

T0 = 1_700_000_000_000  # unix ms of the first measurement


class Folders:
    """Writes trials and sweeps below ``out`` in the layout that the runner uses."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def trial(
        self,
        backbone: str = "lenet5",
        seed: int = 0,
        *,
        epochs: int = 4,
        state: str = "done",
        options: dict[str, object] | None = None,
        metrics: dict[str, float] | None = None,
        data: str = "ab" * 32,
    ) -> str:
        """One trial of ``backbone.train``: state is done, failed, interrupted or new."""
        rng = random.Random(f"{backbone} {seed} {options}")
        config = {"seed": seed, "dataset": "digits", "dataset_options": {}, "backbone": backbone, "epochs": epochs}
        config |= {"backbone_options": {"width": 1.0}, "lr": 0.05, **(options or {})}
        trial = sha256(f"{backbone} {seed} {options} {epochs}".encode()).hexdigest()[:16]
        folder = self.out / "trials" / trial
        folder.mkdir(parents=True, exist_ok=True)
        about = {"experiment": "backbone.train", "version": 1, "config": config, "inputs": {}}
        self.json(folder / "config.json", about)
        if state == "new":
            return trial
        git = {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True}
        facts = {"data_sha256": data, "parameters": 61706}
        provenance = {
            "git": git,
            "packages": {"torch": "2.12.1"},
            "python": "3.11.9",
            "platform": "Linux",
            "facts": facts,
        }
        self.json(folder / "provenance.json", provenance | {"argv": ["engram", "run", "<b>&"], "cores": 2})
        best = 0.97 if backbone == "lenet5" else 0.92
        with (folder / "metrics.jsonl").open("w") as ledger:
            for epoch in range(1, epochs + 1):
                loss = 2.3 * math.exp(-0.8 * epoch) + rng.uniform(0, 0.05)
                accuracy = best - 0.6 * math.exp(-1.1 * epoch) + rng.uniform(-0.01, 0.01)
                for offset, (name, value) in enumerate((("train/loss", loss), ("validation/accuracy", accuracy))):
                    t = T0 + 60_000 * seed + 1000 * epoch + offset
                    ledger.write(json.dumps({"t": t, "step": 10 * epoch, "name": name, "value": value}) + "\n")
        if state == "failed":
            self.json(
                folder / "error.json", {"kind": "trial", "message": "loss must be finite; got nan.", "traceback": ""}
            )
        if state == "done":
            final = {"test/accuracy": best + rng.uniform(-0.008, 0.008), "test/loss": 0.1, "train/loss": 0.05}
            final |= {"parameters": 61706.0, "train_seconds": 3.0 + seed, **(metrics or {})}
            (folder / "model").mkdir(exist_ok=True)
            (folder / "model" / "model.safetensors").write_bytes(rng.randbytes(5000))
            self.json(folder / "result.json", self.result(trial, config, final, rng))
        return trial

    def result(self, trial: str, config: dict, metrics: dict[str, float], rng: random.Random) -> dict[str, object]:
        steps = [1, 2, 4, 8, 16, 32, 64]
        curve = [(t, metrics["test/accuracy"] * (1 - math.exp(-0.45 * t)) + rng.uniform(0, 0.01)) for t in steps]
        figure = {
            "title": "Accuracy against steps",
            "x_label": "simulation steps",
            "y_label": "accuracy (fraction)",
            "series": {"SNN": curve},
            "lines": {"ANN": metrics["test/accuracy"]},
            "x_scale": "log2",
        }
        return {
            "experiment": "backbone.train",
            "trial": trial,
            "config": config,
            "metrics": metrics,
            "tables": {"accuracy_vs_steps": [{"steps": t, "accuracy": round(a, 4)} for t, a in curve]},
            "figures": {"accuracy_vs_steps": figure},
            "artifacts": {"model": "model/model.safetensors"},
            "seconds": 3.2,
        }

    def sweep(
        self,
        name: str = "nets",
        backbones: tuple[str, ...] = ("lenet5", "mlp"),
        seeds: int = 3,
        states: dict[tuple[str, int], str] | None = None,
        axes: dict[str, list[object]] | None = None,
        **trial: Any,
    ) -> list[str]:
        """A sweep over networks and seeds; ``states`` overrides the state of single trials, ``axes`` (one value each)
        are said to vary too, and ``trial`` holds for all trials."""
        planned = []
        for backbone in backbones:
            for seed in range(seeds):
                identity = self.trial(backbone, seed, state=(states or {}).get((backbone, seed), "done"), **trial)
                options = {"backbone": backbone, **{axis: values[0] for axis, values in (axes or {}).items()}}
                planned.append({"trial": identity, "experiment": "backbone.train", "options": options, "seed": seed})
        axes = {"backbone": list(backbones), **(axes or {})}
        suite = 'experiment = "backbone.train"\n'
        plan = {"name": name, "suite": suite, "axes": axes, "seeds": list(range(seeds)), "trials": planned}
        self.json(self.out / "sweeps" / name / "plan.json", plan)
        return [entry["trial"] for entry in planned]

    def json(self, path: Path, value: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "runs")


@pytest.fixture(scope="session")
def folders_in() -> Callable[[Path], Folders]:
    return Folders
