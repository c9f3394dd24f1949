"""What metrics are called: one rule for all experiments, and the names of earlier releases."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engram.backbone.contract import Metric
from engram.backbone.registry import Registry
from engram.benchmarks.compare.comparison import compare_outcomes
from engram.benchmarks.compare.wanted import Wanted
from engram.benchmarks.records.meaning import options_of
from engram.benchmarks.records.outcomes import Outcomes, outcome
from engram.benchmarks.records.trials import Record
from engram.benchmarks.report.curves import learning_curves
from engram.benchmarks.sink.read import _outcome

SPLITS = ("train", "validation", "test", "all")
EXPERIMENTS = Registry.discover().names("experiments")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_name_says_the_split_and_the_measure_that_are_declared(experiment):
    cls = options_of(experiment)
    assert any(metric.primary for metric in cls.metrics)
    for metric in cls.metrics:
        words = metric.name.split("/")
        if metric.split is None:
            assert not set(words) & set(SPLITS) and "accuracy" not in metric.name and "loss" not in metric.name
        else:
            network = f"/{metric.name}".removesuffix(f"/{metric.split}/{metric.of}")
            assert network != f"/{metric.name}" and network.count("/") <= 1
    for old, new in cls.renamed.items():
        names = {new.format(split=split) for split in SPLITS}
        assert old not in {metric.name for metric in cls.metrics} and names & {metric.name for metric in cls.metrics}


def test_a_metric_that_is_called_by_another_split_is_refused():
    with pytest.raises(ValueError, match=r"must be called test/loss, or end in it .*; got 'test/accuracy'"):
        Metric(name="test/accuracy", split="test", of="loss", unit="nat", direction="min")


def _trial(folders, name, config, metrics):
    folder = folders.out / "trials" / name
    folder.mkdir(parents=True)
    experiment = "backbone.evaluate"
    folders.json(folder / "config.json", {"experiment": experiment, "version": 2, "config": config, "inputs": {}})
    result = {"experiment": experiment, "trial": name, "config": config, "metrics": metrics}
    folders.json(folder / "result.json", {**result, "tables": {}, "figures": {}, "artifacts": {}, "seconds": 1.0})
    return Record(folder)


def test_old_trials_and_new_ones_stand_in_one_comparison(folders):
    old = _trial(folders, "a" * 16, {"seed": 0, "split": "test", "from": "x"}, {"accuracy": 0.5, "loss": 1.0})
    new = _trial(folders, "b" * 16, {"seed": 1, "split": "test", "from": "x"}, {"test/accuracy": 0.7, "test/loss": 1.0})
    held = _trial(folders, "c" * 16, {"seed": 2, "split": "validation", "from": "x"}, {"accuracy": 0.9, "loss": 1.0})
    assert held.metrics == {"validation/accuracy": 0.9, "validation/loss": 1.0}
    both = Outcomes("s", (), [outcome(old), outcome(new)])
    for name in (None, "accuracy", "test/accuracy"):
        found = compare_outcomes(both, Wanted(metric=name))
        assert (found.metric, dict(found.groups[0].scores)) == ("test/accuracy", {0: 0.5, 1: 0.7})
    gate = compare_outcomes(both, Wanted(fail_if="accuracy < 0.65")).gate
    assert gate is not None and gate.reasons == ("mean test/accuracy of all is 0.6",)


def test_a_store_with_old_names_reads_like_a_new_one():
    tags = {"engram.experiment": "continual.stream", "engram.config": '{"seed": 0}'}
    told = {"average_accuracy": 0.4, "final/average_accuracy": 0.5, "strategy_bytes": 0.0}
    info, data = SimpleNamespace(status="FINISHED"), SimpleNamespace(tags=tags, metrics=told, params={})
    run: Any = SimpleNamespace(info=info, data=data)
    assert _outcome("t", run).metrics == {"test/average_accuracy": 0.5, "strategy_bytes": 0.0}


def test_learning_curves_come_in_the_order_of_what_they_mean(folders):
    trial = folders.trial()
    charts = learning_curves({"lenet5": [Record(folders.out / "trials" / trial)]})
    assert [(chart.title, chart.y_label) for chart in charts] == [
        ("validation/accuracy", "accuracy"),
        ("train/loss", "loss (nat)"),
    ]
