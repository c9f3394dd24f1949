"""What holds for both strategies that generate what they replay."""

from dataclasses import replace

import pytest
import torch

from engram.backbone.errors import UserError
from engram.continual.generative.bi_r import BIR
from engram.continual.generative.dgr import DGR
from engram.continual.generative.options import BIROptions, DGROptions

OWN = {"dgr": (DGR, DGROptions, {"targets": "soft"}), "bi-r": (BIR, BIROptions, {"targets": "hard", "gated": 0.0})}
QUICK = {"lr": 5e-3, "hidden": 128, "latent": 16}
DIGITS = {"scenario": "class", "lr": 5e-3}
both = pytest.mark.parametrize("name", OWN)


def options(name, given):
    return {f"{name}.{key}": value for key, value in {**QUICK, **given}.items()}


@pytest.mark.parametrize("kind", ["plain", "own", "conv", "latent"])
@both
def test_a_run_that_was_broken_off_ends_with_the_same_weights(learn, resume, name, kind):
    given = {"plain": {}, "own": OWN[name][2], "conv": {"architecture": "conv"}, "latent": {"space": "latent"}}[kind]
    more = {**DIGITS, "epochs": 1, "scenario": "class" if kind == "plain" else "task"}
    whole = learn(name, strategies_options=options(name, given), **more)
    broken = resume(20, name, strategies_options=options(name, given), **more)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)
    for a, b in zip(*(run.strategies[0].generator.parameters() for run in (whole, broken)), strict=True):
        assert torch.equal(a, b)


@both
def test_spiking_networks_and_half_precision(learn, name):
    more, spikes = (
        {**DIGITS, "epochs": None, "iterations": 6},
        {"adapter": "snn.spiking", "adapter_options": {"steps": 2}},
    )
    for given in ({}, {"space": "latent"}):
        own = {"strategies_options": options(name, given), **more}
        spiking = learn(name, **own, **spikes)
        half, full = (learn(name, precision=precision, **own) for precision in ("bf16", "fp32"))
        assert torch.isfinite(spiking.weights()).all() and torch.isfinite(half.weights()).all()
        assert not torch.equal(half.weights(), full.weights())
    assert not torch.equal(spiking.weights(), learn("finetune", **more, **spikes).weights())


@both
def test_event_frames_are_generated_as_features_only(experiment, name):
    strategy = experiment(name).start().strategies[0]
    kind, schema, _ = OWN[name]
    setting = replace(strategy.setting, frames=4)
    with pytest.raises(UserError, match=rf"space must be latent .* --strategies.{name}.space latent"):
        kind(schema(), setting, strategy.model)
    assert kind(schema(space="latent"), setting, strategy.model).shape == (strategy.model.backbone.feature_dim,)
