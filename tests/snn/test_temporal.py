"""Temporal efficient training: the loss against its formula, and what it does to a training."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.contract import Batch, Outputs
from engram.backbone.objectives.cross_entropy import CrossEntropy
from engram.backbone.objectives.every_step import EveryStep
from engram.backbone.saved.model import load_model
from engram.backbone.seeding import seed_everything
from engram.snn.training.configs import SpikingTrainConfig
from engram.snn.training.experiment import SpikingTrain

CONFIG = SpikingTrainConfig.resolve(
    {
        "backbone": "mlp",
        "backbone_options": {"width": 0.25},
        "steps": 3,
        "epochs": 3,
        "batch_size": 32,
        "precision": "fp32",
    }
)


def run(config, services):
    assert config.problems() == []
    seed_everything(config.seed)
    work = SpikingTrain(config, services)
    state = work.start()
    while work.step(state):
        pass
    return work.finish(state)


def temporal_loss(logits, labels, share, label_smoothing=0.0):
    """Of outputs of every step, [T, N, K]."""
    images = torch.zeros(len(labels), 1, 2, 2)
    batch = Batch(images, images, labels, torch.arange(len(labels)))
    return EveryStep(CrossEntropy(label_smoothing), share)(Outputs(logits.mean(0), logits), batch, 0)


def test_the_loss_is_its_formula():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 6, 3, generator=generator)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    own = torch.stack([F.cross_entropy(step, labels, label_smoothing=0.1) for step in logits]).mean()
    drawn = torch.stack([F.mse_loss(step, torch.ones(6, 3)) for step in logits]).mean()
    torch.testing.assert_close(temporal_loss(logits, labels, 0.25, 0.1), 0.75 * own + 0.25 * drawn)
    assert torch.equal(temporal_loss(logits[:1], labels, 0.0), F.cross_entropy(logits[0], labels))
    # of outputs that differ from step to step the mean one is the more certain: the loss is convex
    assert temporal_loss(logits, labels, 0.0) > F.cross_entropy(logits.mean(0), labels)


def test_with_one_step_it_changes_nothing(services, tmp_path):
    once = replace(CONFIG, steps=1, epochs=1)
    plain, temporal = (run(replace(once, tet=tet), services(tmp_path / str(tet), {})) for tet in (None, 0.0))
    assert plain.metrics["train/loss"] == pytest.approx(temporal.metrics["train/loss"], rel=1e-6)
    assert plain.metrics["test/loss"] == pytest.approx(temporal.metrics["test/loss"], rel=1e-5)


def test_steps_come_to_agree(digits, services, tmp_path):
    images, labels, _ = next(digits.test.batches(torch.arange(len(digits.test)), len(digits.test), "cpu"))
    long = replace(CONFIG, steps=6, decay=0.9)

    def disagreement(tet):
        """What every step's output loses against the mean of them, and the loss of the mean (nat)."""
        folder = tmp_path / str(tet)
        assert run(replace(long, tet=tet), services(folder, {})).metrics["test/accuracy"] > 0.9
        model = load_model(folder / "model")[0]
        with torch.no_grad():
            logits = model.head(model.backbone.forward_steps(model.normalise(images)))
        of_mean = F.cross_entropy(logits.mean(0), labels)
        return temporal_loss(logits, labels, 0.0) - of_mean, of_mean

    plain, temporal, drawn = (disagreement(tet) for tet in (None, 0.001, 0.5))
    assert temporal[0] < 0.9 * plain[0]
    assert drawn[1] > 2 * temporal[1]  # outputs near 1 for every class say less
