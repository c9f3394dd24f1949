import re
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.backbone.errors import UserError
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.measures.points import curve_steps
from engram.snn.conversion.configs import ConvertConfig
from engram.snn.conversion.methods import Conversion


def test_without_from_the_network_is_trained_by_backbone_train():
    config = ConvertConfig.resolve({"dataset": "digits", "backbone": "mlp", "epochs": 3, "seed": 4, "steps": 8})
    requirement = config.requires()["trained"]
    assert requirement.experiment == "backbone.train"
    assert type(requirement.config) is TrainConfig
    for field in fields(TrainConfig):
        assert getattr(requirement.config, field.name) == getattr(config, field.name)
    assert requirement.config == TrainConfig.resolve({"dataset": "digits", "backbone": "mlp", "epochs": 3, "seed": 4})
    assert config.problems() == []


def test_with_from_the_given_trial_is_used():
    trained = {"epochs": 7, "backbone": "mlp", "seed": 9, "teacher": "def", "distill": 0.9}
    config = ConvertConfig.resolve({"from_trial": "abc", "steps": 8, "seed": 3}, {"trained": trained})
    assert (config.epochs, config.backbone, config.seed, config.teacher) == (7, "mlp", 3, None)
    assert config.requires() == {}
    assert config.problems() == []


@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ({"epochs": 3}, "--epochs"),
        ({"dataset": "mnist"}, "--dataset"),
        ({"backbone_options": {"width": 2.0}}, "--backbone.*"),
        ({"batch_size": 8}, "--batch-size"),
    ],
)
def test_training_options_beside_from_are_refused(option, flag):
    with pytest.raises(UserError, match=f"^{re.escape(flag)} must be left out beside --from"):
        ConvertConfig.resolve({"from_trial": "abc", **option})


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"activation": "gelu"}, "--backbone.activation relu"),
        ({"normalisation": "group"}, "--backbone.normalisation batch"),
    ],
)
def test_options_that_cannot_become_spiking_are_refused_before_training(options, remedy):
    (problem,) = ConvertConfig.resolve({"backbone_options": options}).problems()
    assert remedy in problem


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 4, "delay": 4}, "--delay must be less than --steps 4; got 4"),
        ({"hybrid": "some"}, "--hybrid must be none, auto or a number"),
        ({"hybrid": "-1"}, "--hybrid must be none, auto or a number"),
        ({"hybrid": "2", "coding": "poisson"}, "wrong on average; got poisson with --hybrid 2. Use"),
        ({"hybrid": "1", "coding": "latency"}, "--coding must be constant or delta before an analog front"),
    ],
)
def test_options_that_make_no_conversion(options, said):
    assert any(said in problem for problem in ConvertConfig.resolve({"from_trial": "abc", **options}).problems())
    assert any(said in problem for problem in ConvertConfig.resolve(options).problems())


@pytest.mark.parametrize("options", [{"hybrid": "2", "coding": "delta"}, {"hybrid": "0", "coding": "poisson"}])
def test_codings_that_an_analog_front_keeps_right(options):
    assert ConvertConfig.resolve({"from_trial": "abc", **options}).problems() == []


def test_every_conversion_option_is_a_flag_with_the_same_default():
    config = ConvertConfig.resolve({"from_trial": "abc", "steps": 5, "threshold": "ltb", "delay": 2})
    assert config.conversion() == Conversion(steps=5, threshold="ltb", delay=2)
    assert ConvertConfig.resolve({"steps": 64}).conversion() == Conversion(steps=64)
    fitted = [Conversion(steps=steps).fitted_steps for steps in (1, 4, 8, 12, 16, 64)]
    assert fitted == [1, 4, 4, 6, 8, 8]
    assert Conversion(steps=64, calibration_steps=32).fitted_steps == 32


def test_there_is_no_conversion_without_steps():
    with pytest.raises(UserError, match="steps must be at least 1; got 0"):
        Conversion(steps=0)


@given(st.integers(1, 4096))
@settings(deadline=None)
def test_the_curve_ends_at_the_last_step(steps):
    points = curve_steps(steps)
    assert points[-1] == steps
    assert points == sorted(set(points))
    assert all(a * 2 == b for a, b in pairwise(points[:-1]))


def test_options_import_no_torch():
    code = "import sys, engram.snn.conversion.configs, engram.snn.plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
