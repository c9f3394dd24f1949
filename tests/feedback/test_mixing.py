"""The mixing experiment: its network, its noise, what it trains first and what it reports."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import Normalise
from engram.feedback.mixing.configs import MixingConfig
from engram.feedback.mixing.noise import noisy
from engram.feedback.mixing.report import report
from engram.feedback.nets.alamia import alamia
from engram.feedback.nets.options import AlamiaOptions

NORMALISE = Normalise(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3]))


def test_the_shallow_network_is_that_of_the_paper():
    net = alamia((3, 32, 32), AlamiaOptions())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, second, third = net.image_stages(images)
    assert [tuple(stage.shape[1:]) for stage in (first, second, third)] == [(12, 32, 32), (18, 16, 16), (24, 8, 8)]
    assert sum(p.numel() for p in net.parameters()) == 25 * (3 * 12 + 12 * 18 + 18 * 24) + 54 + 384 * 120 + 120
    conv, units = net.body[2][-1], net.tail[3]
    torch.testing.assert_close(F.conv2d(F.max_pool2d(second.relu(), 2), conv.weight, conv.bias, padding=2), third)
    flat = F.max_pool2d(third.relu(), 2).flatten(1)
    torch.testing.assert_close(F.linear(flat, units.weight, units.bias).relu(), net(images))


def test_gaussian_noise_is_of_normalised_values_and_not_cut_off():
    x = NORMALISE(torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    added = noisy(x, "gaussian", 0.8, NORMALISE, torch.Generator().manual_seed(1)) - x
    assert added.mean().abs() < 0.02 and abs(added.std() - 0.8) < 0.02
    assert torch.equal(noisy(x, "gaussian", 0.0, NORMALISE, torch.Generator().manual_seed(1)), x)


def test_salt_and_pepper_are_white_and_black_pixels_of_every_image_by_itself():
    x = NORMALISE(torch.full((64, 3, 32, 32), 0.5))
    found = noisy(x, "salt-and-pepper", 0.1, NORMALISE, torch.Generator().manual_seed(1))
    pixels = found * NORMALISE.std.view(3, 1, 1) + NORMALISE.mean.view(3, 1, 1)
    assert torch.equal(pixels.round(decimals=4).amin(1), pixels.round(decimals=4).amax(1))  # all channels alike
    for value in (0.0, 1.0):
        hit = (pixels[:, 0] - value).abs() < 1e-4
        assert abs(hit.float().mean() - 0.05) < 0.003 and not torch.equal(hit[0], hit[1])


def test_network_and_predictions_are_trained_in_trials_before():
    config = MixingConfig.resolve({"dataset": "cifar10", "seed": 3, "epochs": 7, "kernel": 3})
    assert config.levels == (0.0, 0.2, 0.4, 0.8)
    predictions = config.requires()["trained"]
    network = predictions.after["trained"]
    assert (network.config.backbone, network.config.epochs, network.config.seed) == ("feedback.alamia", 7, 3)
    assert network.config.objective == "cross-entropy" and not network.config.adapter
    assert predictions.config.objective == "feedback.reconstruction" and predictions.config.seed == 3
    assert predictions.config.adapter == ("feedback.predictive",)
    other = MixingConfig.resolve(
        {"dataset": "cifar10", "seed": 3, "epochs": 7, "kernel": 3, "noise": "salt-and-pepper"}
    )
    assert other.requires() == config.requires() and other.levels == (0.0, 0.02, 0.04, 0.06)
    given = MixingConfig.resolve({"from_trial": "abc"}, {"trained": {"dataset": "mnist", "backbone": "lenet5"}})
    assert not given.requires() and (given.dataset, given.backbone) == ("mnist", "lenet5")


def test_what_a_trained_network_fixes_is_not_given_beside_it():
    trained = {"dataset": "digits", "backbone": "lenet5"}
    with pytest.raises(UserError) as refused:
        MixingConfig.resolve(
            {"from_trial": "abc", "dataset": "mnist", "backbone": "mlp", "kernel": 7}, {"trained": trained}
        )
    for name in ("--dataset", "--backbone", "--kernel"):
        assert f"{name} must be" in str(refused.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"levels": (0.4, 0.2)}, "--levels must be two levels or more, in ascending order; got 0.4, 0.2"),
        ({"levels": (0.0,)}, "--levels must be two levels or more"),
        (
            {"noise": "salt-and-pepper", "levels": (0.0, 2.0)},
            "--levels must be at most 1 for shares of pixels; got 2.0",
        ),
        ({"kernel": 4}, "--kernel must be odd"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(given, said):
    (found,) = MixingConfig.resolve(given).problems()
    assert said in found


def test_the_report_compares_the_lowest_level_with_the_highest():
    config = MixingConfig.resolve({"levels": (0.0, 0.5), "steps": 2})
    path = [[{"loss": 1.0, "feedforward": 0.3, "feedback": share, "correction": 0.1}] for share in (0.2, 0.45, 0.0)]
    found = report(config, path, [[0.9, 0.8, 0.91], [0.5, 0.55, 0.6], [0.5, 0.5, 0.53]])
    assert found.metrics == pytest.approx(
        {
            "feedback_share/rise": 0.25,
            **{"feedback_share/lowest": 0.2, "feedback_share/highest": 0.45},
            **{"lowest/test/accuracy": 0.9, "lowest/test/gain": 1.0},
            **{"highest/test/accuracy": 0.5, "highest/test/gain": 10.0, "highest/test/gain_without": 3.0},
        }
    )
    assert found.tables["mixing"][1]["memory"] == pytest.approx(0.25)
    assert found.tables["accuracy_vs_steps"][2] == {
        "steps": 2,
        "level_0": 0.91,
        "level_0.5": 0.6,
        "level_0.5_without": 0.53,
    }
    assert found.figures["shares"].series["feedback"] == [(0.0, 0.2), (0.5, 0.45)]
