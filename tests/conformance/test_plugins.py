"""What every discovered experiment must keep to in the runner: the kit (`test_kit`) has what it keeps to by itself."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import fields

import pytest

from engram.backbone.options import Checker
from engram.backbone.registry import Registry
from engram.benchmarks.commands.flags import Planning
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning.config import experiment_config, full, to_toml, without_defaults
from engram.causal.explaining.configs import METHODS

REGISTRY = Registry.discover()
EXPERIMENTS = REGISTRY.names("experiments")
# Options under which an experiment reports everything it may, and is quick; one that is not named here does so at its
# own.
FULL = {
    "causal.explain": {"images": 4, "points": 4},
    "causal.scm": {"dataset": "shapes-scm", "dataset_options": {"images": 120, "size": 12}},
    "feedback.clutter": {
        "dataset": "digit-clutter:digits",
        "dataset_options": {"train_images": 120, "validation_images": 60, "test_images": 60},
    },
    "continual.stream": {"validation": 0.1, "connectivity": 3, "strategies": ("continual.si",)},
    "feedback.robustness": {"adapter": ("feedback.gated",), "kinds": ("jpeg",), "severities": (3,)},
    "feedback.control": {"adapter": ("feedback.gated",)},
    "feedback.mixing": {"levels": (0.0, 0.8), "updates": 4, "images": 64},
    "feedback.analyse": {"images": 64, "training_images": 64},
    "fewshot.episodes": {
        "dataset_options": {"classes": 30, "held_out": 6, "drawings": 8},
        "queries": 3,
        "episodes": 50,
        "train_episodes": 20,
    },
    "fewshot.one-shot-runs": {
        "dataset": "glyphs",
        "dataset_options": {"classes": 2, "held_out": 25, "drawings": 3, "size": 16},
        "runs": 3,
    },
}
CASES = [(name, FULL.get(name, {})) for name in EXPERIMENTS]
CASES += [("backbone.train", {"dataset": "PICTURES", "backbone": "vgg-tiny"})]
cases = pytest.mark.parametrize(
    ("experiment", "options"),
    CASES,
    ids=lambda value: value if isinstance(value, str) else value.get("backbone", ""),
)


def test_every_plugin_loads():
    assert REGISTRY.broken == {}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_config_survives_toml(experiment):
    cls = experiment_config(REGISTRY, experiment)
    config = cls.resolve({})
    values = full(REGISTRY, config)
    checker = Checker(REGISTRY, lambda name: name, "Mend it.")
    again = checker.build(cls, tomllib.loads(to_toml(values)))
    assert again is not None and without_defaults(REGISTRY, again) == config
    assert to_toml(full(REGISTRY, again)) == to_toml(values)
    assert cls.resolve(vars(config)) == config


EARLY = tuple(f"test/early_exit_{what}" for what in ("accuracy", "mean_steps", "share_of_steps"))
NOT_ASKED_FOR = {
    "snn.deploy": ("ann/test/accuracy", "lava/agreement", "file/agreement"),
    **dict.fromkeys(("backbone.train", "feedback.control", "causal.shift", "causal.scm", "causal.concepts"), EARLY),
    "causal.effects": tuple(f"test/{what}" for what in ("background_effect", "shape_effect", "shape_share")),
    "causal.explain": tuple(f"{what}/on_foreground" for what in ("random", *METHODS)),
}
"""Metrics that an experiment reports where an option asks for them: of stopping early, networks with steps; of objects
and what is around them, data that say where objects are."""


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_options_do_not_hide_flags_of_the_runner(experiment):
    ours = {field.name for field in fields(Planning)}
    assert not ours & {field.name for field in fields(experiment_config(REGISTRY, experiment))}


@cases
def test_declared_metrics_and_no_writing_elsewhere(bench, writes_outside, experiment, options):
    trial = bench.plan(experiment, **options)
    with writes_outside(trial.folder) as elsewhere:
        record = bench.run(trial)
    assert elsewhere == []
    metrics = experiment_config(REGISTRY, experiment).metrics
    chosen = sum(metric.primary for metric in metrics) > 1  # the split that is scored is an option
    left_out = [metric.name for metric in metrics if metric.name not in record.metrics and not chosen]
    assert set(left_out) <= set(NOT_ASKED_FOR.get(experiment, ()))
    assert not [metric.name for metric in metrics if metric.name in left_out and not metric.optional]
    for metric in metrics:  # intervals do not leave these
        low, high = metric.span
        value = record.metrics.get(metric.name, low or 0.0)
        assert (low is None or low <= value) and (high is None or value <= high), metric.name
    assert all(math.isfinite(value) for value in record.metrics.values())
    assert "data_sha256" in json.loads((trial.folder / "provenance.json").read_text())["facts"]


@cases
def test_same_seed_same_numbers(bench, other_bench, the_numbers, experiment, options):
    first = bench.run(bench.plan(experiment, **options))
    again = other_bench.run(other_bench.plan(experiment, **options))
    assert again.trial == first.trial
    assert again.result["content"] == first.result["content"]  # what else is made from either is one trial
    assert the_numbers(again) == the_numbers(first)


@cases
@pytest.mark.usefixtures("checkpoint_always")
def test_killed_and_resumed_gives_the_same_numbers(
    bench, other_bench, the_numbers, kill_after, killed, experiment, options
):
    whole = bench.run(bench.plan(experiment, **options))
    trial = other_bench.plan(experiment, **options)
    for steps in (1, 2):
        try:
            other_bench.run(trial, kill_after(steps))
        except killed:
            assert not (trial.folder / "result.json").exists()
    assert the_numbers(other_bench.run(trial)) == the_numbers(whole)


def test_killed_by_the_kernel_and_resumed(engram, bench, other_bench, the_numbers, wait_for, capsys):
    """The same with a process and SIGKILL."""
    trial = other_bench.plan("backbone.train", epochs=20, seed=5)
    write_trial(trial, RunSetting(out=other_bench.out, data_root=other_bench.out, argv=[], device="cpu"))
    process = engram.start("exec", trial.folder, ENGRAM_CHECKPOINT_SECONDS="0")
    wait_for(lambda: len(list((trial.folder / "ckpt").glob("*.json"))) > 1, seconds=120)
    process.kill()
    process.communicate()
    assert not (trial.folder / "result.json").exists()
    capsys.readouterr()
    resumed = other_bench.run(trial)
    assert "resumed at step" in capsys.readouterr().out
    assert the_numbers(resumed) == the_numbers(bench.run(bench.plan("backbone.train", epochs=20, seed=5)))
