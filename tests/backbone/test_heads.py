"""Heads against closed forms; which of them have a linear form, and which classify by a support set."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.contract import Head, Named, SupportHead
from engram.backbone.data.load import load
from engram.backbone.errors import UserError
from engram.backbone.experiments.beginning import begin
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.nets import prototypes
from engram.backbone.nets.heads import Logistic, as_linear, linear_form
from engram.backbone.nets.making import build_head
from engram.backbone.nets.prototypes import class_means, nearest_mean


def test_cosines_are_those_of_the_angles():
    """Vectors at known angles in the plane, of any length."""
    head = build_head(Named("cosine", 1, {"scale": 3.0}), 2, 3)
    at = torch.tensor([0.0, math.pi / 3, math.pi])
    with torch.no_grad():
        head.weight.copy_(torch.stack([at.cos(), at.sin()], 1) * torch.tensor([[0.1], [5.0], [1.0]]))
    seen = torch.tensor([math.pi / 6, math.pi / 2])
    features = torch.stack([seen.cos(), seen.sin()], 1) * torch.tensor([[7.0], [0.01]])
    torch.testing.assert_close(head(features), 3 * (seen[:, None] - at).cos(), rtol=1e-5, atol=1e-6)


def test_a_cosine_head_takes_features_of_every_step_and_none_at_all():
    head = build_head(Named("cosine", 1, {}), 5, 4)
    features = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    wanted = 10 * F.cosine_similarity(features.unsqueeze(-2), head.weight, dim=-1)
    torch.testing.assert_close(head(features), wanted)
    assert torch.equal(head(torch.zeros(1, 5)), torch.zeros(1, 4))


class Scaled(nn.Module):
    """A linear layer times a number: a head of somebody else's, with a linear form."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, features):
        return 2 * self.layer(features)

    def as_linear(self):
        made = nn.Linear(self.layer.in_features, self.layer.out_features)
        made.load_state_dict({name: 2 * value for name, value in self.layer.state_dict().items()})
        return made


def test_the_linear_form_of_a_head():
    plain, features = build_head(Named("linear", 1, {}), 5, 4), torch.randn(3, 5)
    assert type(plain) is nn.Linear and linear_form(plain) is plain
    scaled = Scaled(plain)
    assert isinstance(scaled, Head)
    torch.testing.assert_close(as_linear(scaled, "x")(features), scaled(features))
    for none in (build_head(Named("cosine", 1, {}), 5, 4), nn.Sequential(plain)):
        assert linear_form(none) is None
        kind = type(none).__name__
        with pytest.raises(UserError, match=rf"the head for x must be one with a linear form; got {kind}\. Train with"):
            as_linear(none, "x")


@pytest.mark.parametrize("scale", [0.0, -1.0, "wide"])
def test_an_option_that_a_head_cannot_have(scale):
    with pytest.raises(UserError, match=r"--head\.scale must be (a number )?greater than 0"):
        build_head(Named("cosine", 1, {"scale": scale}), 5, 4)


class Prototypes(nn.Module):
    """Nearest class mean of the support set, Snell et al. 2017."""

    def from_support(self, queries, support, labels, ways):
        weight, bias = nearest_mean(class_means(support, labels, ways))
        return queries @ weight.mT + bias.unsqueeze(-2)

    def fitted(self, support, labels, ways):
        raise NotImplementedError


def test_a_head_that_classifies_by_a_support_set():
    head = Prototypes()
    assert isinstance(head, SupportHead) and not isinstance(head, Head)
    support, labels = torch.tensor([[[0.0, 0], [0, 2], [4, 0], [8, 0]]]), torch.tensor([[0, 0, 1, 1]])
    queries = torch.tensor([[[1.0, 1], [6, 1], [3.4, 0]]])
    logits = head.from_support(queries, support, labels, ways=2)
    distances = torch.cdist(queries, torch.tensor([[[0.0, 1], [6, 0]]])).square()
    torch.testing.assert_close(logits.softmax(2), (-distances).softmax(2))


def test_means_of_many_classes_are_those_of_few(monkeypatch):
    random = torch.Generator().manual_seed(0)
    features, labels = torch.randn(2, 30, 5, generator=random), torch.arange(30).repeat(2, 1) % 7
    few = prototypes.class_means(features, labels, 7)
    monkeypatch.setattr(prototypes, "_LARGE", 0)
    torch.testing.assert_close(prototypes.class_means(features, labels, 7), few)
    torch.testing.assert_close(few[1, 3], features[1, labels[1] == 3].mean(0))


def test_a_logistic_head_of_two_classes_has_the_loss_of_one_logit():
    features, labels = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    head = Logistic(5, 2)
    single = head.layer(features)[:, 0]
    loss = F.binary_cross_entropy_with_logits(single, labels.float())
    assert torch.allclose(F.cross_entropy(head(features), labels), loss)
    assert torch.allclose(head.as_linear()(features), head(features))
    assert sum(each.numel() for each in head.parameters()) == 6


def test_a_network_may_take_pixels_as_they_are():
    """Its first layer then sees values between 0 and 1."""
    config = TrainConfig.resolve({"backbone": "mlp", "backbone_options": {"units": 4, "depth": 1, "raw": True}})
    data = load("digits", {}, root=Path("nowhere"))
    model = begin(config, data, {}).model
    images, _, _ = next(data.train.batches(torch.arange(8), 8, "cpu"))
    assert torch.allclose(model.normalise(images), images.float() / 255)
