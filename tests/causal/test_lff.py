"""What a biased network finds hard counts more."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.contract import ObjectiveSetting
from engram.backbone.data.sets import MemorySplit
from engram.backbone.hardware import Machine
from engram.backbone.nets.making import build
from engram.backbone.training.loop import Trainer
from engram.backbone.training.optim import relative_rate
from engram.backbone.training.options import TrainingOptions
from engram.causal.objectives.lff import LfF, generalised_cross_entropies
from engram.causal.objectives.reference_options import LfFOptions

SHAPE, COUNT = (1, 2, 3), 40


def made(**options):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (COUNT, *SHAPE), dtype=torch.uint8, generator=random)
    data = MemorySplit(images, torch.arange(COUNT) % 2, {"group": ("a", "b", "b", "b") * 10})
    torch.manual_seed(0)
    model = build("mlp", {"units": 5, "depth": 1}, SHAPE, 2, torch.zeros(1), torch.ones(1) / 2)
    setting = ObjectiveSetting(data=data, outputs=2, label_smoothing=0.0, device="cpu")
    given = {
        "epochs": 3,
        "batch_size": 16,
        "optimizer": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "lr": 0.5,
        **options,
    }
    return Trainer(model, data, TrainingOptions(**given), Machine("cpu", "fp32"), LfF(LfFOptions(), setting))


@pytest.mark.parametrize("q", [0.7, 1.0])
def test_the_slope_of_the_generalised_loss_is_that_of_the_cross_entropy_times_a_power(q):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double).requires_grad_()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    plain = F.cross_entropy(logits, labels, reduction="none")
    p = torch.exp(-plain).detach()
    losses = generalised_cross_entropies(logits, labels, q)
    torch.testing.assert_close(losses.detach(), (1 - p**q) / q)
    (slope,) = torch.autograd.grad(losses.sum(), logits, retain_graph=True)
    (wanted,) = torch.autograd.grad((p**q * plain).sum(), logits)
    torch.testing.assert_close(slope, wanted)


def test_the_generalised_loss_becomes_the_cross_entropy():
    logits, labels = 5 * torch.randn(6, 3, dtype=torch.double), torch.tensor([0, 1, 2, 0, 1, 2])
    found = generalised_cross_entropies(logits, labels, 1e-9)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, reduction="none"), rtol=1e-6, atol=1e-7)


def test_two_epochs_by_hand():
    """Both networks, the averages and the weights, without the loop."""
    trainer = made()
    net, biased = made().model, made().model
    images, labels, _ = next(trainer.data.batches(torch.arange(COUNT), COUNT, "cpu"))
    averages, steps = torch.zeros(2, COUNT), 0
    while steps < 6:
        for rows in trainer._order(steps // 3).split(16):
            rate = 0.5 * relative_rate("onecycle", (steps + 1) / 10, 0.2)
            both = [each(images[rows]) for each in (biased, net)]
            losses = torch.stack([F.cross_entropy(each, labels[rows], reduction="none") for each in both])
            before = averages[:, rows]
            averages[:, rows] = torch.where(before > 0, 0.7 * before + 0.3 * losses.detach(), losses.detach())
            weights = averages[0, rows] / averages[:, rows].sum(0)
            p = (-losses[0]).exp()
            for each, loss in ((biased, ((1 - p**0.7) / 0.7).mean()), (net, (weights * losses[1]).mean())):
                slopes = torch.autograd.grad(loss, list(each.parameters()))
                with torch.no_grad():
                    for weight, slope in zip(each.parameters(), slopes, strict=True):
                        weight -= rate * slope
            steps += 1
    while trainer.step < 6:
        trainer.advance()
    torch.testing.assert_close(trainer.objective.averages, averages, rtol=1e-4, atol=1e-6)
    for ours, wanted in ((trainer.objective.biased, biased), (trainer.model, net)):
        torch.testing.assert_close(list(ours.parameters()), list(wanted.parameters()), rtol=1e-4, atol=1e-6)
    rows = trainer.objective.tables()["weights"]
    weights = averages[0] / averages.sum(0)
    assert [(row["group"], row["images"]) for row in rows] == [("a", 10), ("b", 30)]
    assert rows[0]["mean weight"] == pytest.approx(weights[::4].mean().item(), rel=1e-4)


def test_it_goes_on_to_the_last_bit():
    whole, first, second = (made(optimizer="adamw", lr=0.01, clip=1.0) for _ in range(3))
    while not whole.done:
        whole.advance()
    for _ in range(4):
        first.advance(0)
    second.load_state_dict(first.state_dict())
    while not second.done:
        second.advance()
    assert torch.equal(whole.objective.averages, second.objective.averages)
    for ours, theirs in ((whole.model, second.model), (whole.objective.biased, second.objective.biased)):
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    assert not torch.equal(whole.model.head.weight, whole.objective.biased.head.weight)
