"""What is trained under an adapter is scored, gone on with, taught from and converted like any other network."""

from __future__ import annotations

import pytest

from engram.backbone.contract import Backbone
from engram.backbone.registry import Registry
from engram.backbone.saved.model import load_model

SAME = "feedback."
"""Kinds of feedback share what makes them like any other network; the usual one shows it, the rest in ``make
test-slow``."""
ADAPTERS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name.startswith(SAME) and name != "feedback.gated"))
    for name in Registry.discover().names("adapters")
]
CHAINS = {"snn.readout": ("snn.spiking", "snn.readout")}  # it reads spikes
TINY = {"snn.spiking": {"steps": 2}, "snn.readout": {"spiking.steps": 2}}


@pytest.fixture(scope="module", params=ADAPTERS)
def adapted(request, bench):
    """A finished training under each adapter."""
    name, options = request.param, TINY.get(request.param, {})
    return bench.run(bench.plan("backbone.train", adapter=CHAINS.get(name, name), adapter_options=options))


def test_it_is_started_from_and_learned_from(bench, adapted):
    trial = bench.plan("backbone.train", backbone="mlp", from_trial=adapted.trial, teacher=adapted.trial, epochs=1)
    model, made = load_model(bench.run(trial).folder / "model")
    assert [adapter.name for adapter in made.adapters] == adapted.config["adapter"]
    assert isinstance(model.backbone, Backbone)


def test_a_spiking_training_is_evaluated_unchanged(bench):
    made = bench.run(bench.plan("snn.train"))
    scored = bench.run(bench.plan("backbone.evaluate", from_trial=made.trial))
    assert scored.metrics["test/accuracy"] == made.metrics["test/accuracy"]


def test_a_qcfs_training_is_converted(bench):
    made = bench.run(bench.plan("backbone.train", adapter="snn.qcfs", adapter_options={"levels": 4}))
    converted = bench.run(bench.plan("snn.convert", from_trial=made.trial, steps=32))
    assert converted.metrics["ann/test/accuracy"] == made.metrics["test/accuracy"]
    assert abs(converted.metrics["test/accuracy_drop"]) < 2


def test_a_spiking_training_starts_from_a_quantised_one(bench):
    made = bench.run(bench.plan("backbone.train", adapter="snn.qcfs"))
    hybrid = bench.run(bench.plan("snn.train", backbone="mlp", from_trial=made.trial, steps=4, epochs=1))
    _, kept = load_model(hybrid.folder / "model")
    assert [adapter.name for adapter in kept.adapters] == ["snn.qcfs", "snn.spiking"]
    assert hybrid.metrics["test/accuracy"] > made.metrics["test/accuracy"] - 0.1


def test_a_converted_network_is_evaluated_learned_from_and_trained_on(bench):
    made = bench.run(bench.plan("snn.convert", steps=4))
    scored = bench.run(bench.plan("backbone.evaluate", from_trial=made.trial))
    assert scored.metrics["test/accuracy"] == made.metrics["snn/test/accuracy"]
    tuned = bench.run(
        bench.plan("snn.train", backbone="mlp", from_trial=made.trial, teacher=made.trial, steps=4, epochs=1)
    )
    _, kept = load_model(tuned.folder / "model")
    assert [adapter.name for adapter in kept.adapters] == ["snn.convert", "snn.spiking"]
    assert tuned.metrics["test/accuracy"] > made.metrics["snn/test/accuracy"] - 0.1
