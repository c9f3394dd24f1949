"""Attacks against closed forms: a linear model's worst picture, a polynomial's gradient, a gradient that is hidden."""

import pytest
import torch
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.measures.attacks import PGD, SPSA, Elsewhere, answering, margins, spsa_gradient, withstood
from engram.backbone.nets.making import build

SHAPE = (1, 4, 4)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def linear():
    """Two classes, W x + b; its pictures, and what they are taken for."""
    weight = torch.randn(2, 16, generator=random(1))
    images = torch.rand(64, *SHAPE, generator=random(2))
    labels = (images.flatten(1) @ weight.T).argmax(1)
    return weight, images, labels


def worst(weight, images, labels, epsilon):
    """In closed form: every value goes to that end of its range that favours the other class."""
    toward = (weight[1 - labels] - weight[labels]).view(-1, *SHAPE)
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    return torch.where(toward > 0, high, low)


@pytest.mark.parametrize("epsilon", [0.02, 0.1, 0.5])
def test_pgd_finds_the_worst_picture_of_a_linear_model(linear, epsilon):
    weight, images, labels = linear

    def logits(x):
        return x.flatten(1) @ weight.T

    closed = worst(weight, images, labels, epsilon)
    fooled = logits(closed).argmax(1) != labels
    assert 0 < fooled.sum() <= 64
    found = PGD(epsilon=epsilon, steps=12, restarts=1)(logits, images, labels, random())
    assert torch.equal(logits(found).argmax(1) != labels, fooled)
    torch.testing.assert_close(found[~fooled], closed[~fooled])  # it went all the way where that was not enough


@pytest.mark.parametrize("attack", [PGD(epsilon=0.1, steps=5), SPSA(epsilon=0.1, steps=5, samples=4, lr=0.5)])
def test_no_attack_leaves_the_ball_or_the_range(linear, attack):
    weight, images, labels = linear
    found = attack(lambda x: x.flatten(1) @ weight.T, images, labels, random())
    assert float((found - images).abs().max()) <= 0.1 + 1e-6
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    assert not torch.equal(found, images)
    again = attack(lambda x: x.flatten(1) @ weight.T, images, labels, random())
    assert torch.equal(found, again)


def test_spsa_fools_a_linear_model_as_its_closed_form_says(linear):
    weight, images, labels = linear

    def logits(x):
        return x.flatten(1) @ weight.T

    fooled = logits(worst(weight, images, labels, 0.1)).argmax(1) != labels
    found = SPSA(epsilon=0.1, steps=20, samples=64, lr=0.02)(logits, images, labels, random())
    got = logits(found).argmax(1) != labels
    assert not (got & ~fooled).any()  # nothing can do better than the closed form
    assert int(got.sum()) >= int(fooled.sum()) - 2


def test_estimated_gradients_converge_to_the_true_one():
    x = torch.rand(3, *SHAPE, generator=random(3), dtype=torch.float64)
    matrix = torch.randn(16, 16, generator=random(4), dtype=torch.float64)

    def loss(pictures):
        flat = pictures.flatten(1)
        return ((flat @ matrix) * flat).sum(1)

    true = (x.flatten(1) @ (matrix + matrix.T)).view_as(x)
    errors = []
    for samples in (100, 1_600, 25_600):
        got = spsa_gradient(loss, x, samples, 0.01, random(5))
        errors.append(float((got - true).norm() / true.norm()))
    # a quadratic's differences are exact: what is left is the signs' chance, one over the root of their number
    assert errors[0] < 0.8 and errors[1] < errors[0] / 2.5 and errors[2] < errors[1] / 2.5 and errors[2] < 0.04


class Masked(nn.Module):
    """A linear model behind a staircase, whose gradient is 0 everywhere."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, x):
        return (x * 255).round().div(255).flatten(1) @ self.weight.T


def test_a_network_that_hides_its_gradient_is_seen_through_by_the_least_over_attacks(linear):
    weight, images, labels = linear
    attacks = PGD(epsilon=0.1, steps=5, restarts=1), SPSA(epsilon=0.1, steps=20, samples=64, lr=0.02)
    open_, masked = (withstood(net, attacks, images, labels, random()) for net in (Masked(weight), Masked(weight)))
    assert torch.equal(open_, masked)
    by_gradient, without = masked.float().mean(1).tolist()
    honest = withstood(lambda x: x.flatten(1) @ weight.T, attacks[:1], images, labels, random()).float().mean()
    assert by_gradient > honest + 0.2  # it looks robust to PGD
    assert without < by_gradient - 0.2
    assert float(masked.all(0).float().mean()) <= min(by_gradient, without)


def test_what_is_found_through_other_gradients_fools_a_network_without_any(linear):
    weight, images, labels = linear
    masked = Masked(weight)
    through = Elsewhere(PGD(epsilon=0.1, steps=10, restarts=1), lambda x: x.flatten(1) @ weight.T)
    rows = withstood(masked, (PGD(epsilon=0.1, steps=10, restarts=1), through), images, labels, random())
    assert int(rows[1].sum()) < int(rows[0].sum()) - 10


@pytest.mark.parametrize("attack", [PGD(epsilon=0.1, steps=12), SPSA(epsilon=0.1, steps=20, samples=64, lr=0.02)])
def test_the_way_of_other_logits_is_gone_until_the_target_errs(linear, attack):
    """The others err from the start on, and point the right way all the same."""
    weight, images, labels = linear
    images, labels = images[labels == 1], labels[labels == 1]

    def target(x):
        return x.flatten(1) @ weight.T

    through = Elsewhere(attack, lambda x: target(x) + torch.tensor([0.0, -100.0]))
    fooled = target(worst(weight, images, labels, 0.1)).argmax(1) != labels
    assert 10 < fooled.sum() < len(labels)
    got = ~withstood(target, [through], images, labels, random())[0]
    assert not (got & ~fooled).any() and int(got.sum()) >= int(fooled.sum()) - (2 if isinstance(attack, SPSA) else 0)


def test_every_picture_on_the_way_is_tried_on_the_target():
    """It errs in a shell that is passed, and neither where the others err first nor at the end."""
    images, labels = torch.full((8, *SHAPE), 0.5), torch.zeros(8, dtype=torch.int64)

    def target(x):
        level = x.mean((1, 2, 3))
        return torch.stack([torch.full_like(level, 0.015), 0.03 - (level - 0.56).abs()], 1)

    def other(x):
        level = x.sum((1, 2, 3)) - 8.0
        return torch.stack([-level, level + 4], 1)

    through = Elsewhere(PGD(epsilon=0.1, steps=12, restarts=1), other)
    assert not withstood(target, [through], images, labels, random()).any()


def test_margins():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]])
    assert margins(logits, torch.tensor([1, 1])).tolist() == [1.0, -5.0]


def test_answers_of_a_classifier_at_a_step_are_those_of_its_frames():
    model = build("mlp", {"units": 8}, SHAPE, 3, torch.zeros(1), torch.ones(1)).eval()
    images = torch.rand(5, *SHAPE, generator=random())
    assert torch.equal(answering(model)(images), model(images))
    torch.testing.assert_close(answering(model, 1)(images), model(images))
    model.requires_grad_(False)
    assert PGD(steps=2)(answering(model), images, torch.zeros(5, dtype=torch.int64), random()).shape == images.shape


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="epsilon must be greater than 0"):
        PGD(epsilon=0.0)
    with pytest.raises(UserError, match="samples must be at least 1; got 0"):
        SPSA(samples=0)
