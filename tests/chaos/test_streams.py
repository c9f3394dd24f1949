"""SIGKILL in the middle of a task, or while a strength is chosen: the same command again ends with the figures of a run
that nothing happened to."""

from __future__ import annotations

import json

import pytest

from engram.backbone.registry import Registry
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.trials import Record
from engram.benchmarks.worker.stopping import Stop
from engram.benchmarks.worker.trial import work

REGISTRY = Registry.discover()
TIMED = ("seconds_per_iteration", "train_seconds", "choosing_seconds")
WORDS = {"strategies": ("continual.si", "continual.er"), "scenario": "class", "tasks": 2, "buffer": 50, "lr": 0.003}


def figures(folder) -> dict:
    found = Record(folder)
    metrics = {name: x for name, x in found.metrics.items() if name not in TIMED}
    lines = [(line.name, line.step, line.value) for line in found.ledger() if line.name not in TIMED]
    return {"tables": found.result["tables"], "ledger": lines, **metrics}


@pytest.mark.parametrize(
    ("strength", "iterations", "shares"),
    [
        pytest.param(0.1, 400, (0.3, 1.3), marks=pytest.mark.slow),
        pytest.param("auto", 60, (0.4, 8.3), marks=pytest.mark.slow),
    ],
)
def test_a_killed_stream(engram, wait_for, tmp_path, strength, iterations, shares):
    given = {**WORDS, "strategies_options": {"si.c": strength}, "iterations": iterations}
    folders = []
    for out in (tmp_path / "whole", tmp_path / "broken"):
        trial = Planner(REGISTRY, out, DataSets(REGISTRY, out)).add("continual.stream", given)
        write_trial(trial, RunSetting(out=out, data_root=out, argv=[], device="cpu"))
        folders.append(trial.folder)
    whole, broken = folders
    for share in shares:

        def beyond(share=share) -> bool:
            path = broken / "progress.json"
            return path.exists() and json.loads(path.read_text())["done"] > share

        worker = engram.start("exec", broken, ENGRAM_CHECKPOINT_SECONDS="0.1")
        wait_for(beyond, seconds=120)
        worker.kill()
        worker.communicate()
        assert not (broken / "result.json").exists()
    for folder in folders:
        assert work(folder, Stop()) == 0
    assert figures(broken) == figures(whole)
