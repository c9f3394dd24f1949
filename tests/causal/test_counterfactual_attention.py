"""Counterfactual attention: pooling against loops, what takes the place of maps, and the loss."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.contract import Batch, ObjectiveSetting
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.causal.attention.experiment import beside, effects
from engram.causal.objectives.attention_options import EffectOfAttentionOptions
from engram.causal.objectives.counterfactual import counterfactual

SHAPE, CLASSES = (2, 8, 8), 3
NAME = "causal.counterfactual-attention"


def made(*before, backbone="vgg-tiny", **options):
    registry = Registry.discover()
    adapters = [*(in_full(registry, "adapters", name, own) for name, own in before)]
    adapters.append(in_full(registry, "adapters", NAME, {"maps": 3, **options}))
    torch.manual_seed(0)
    mean, std = torch.zeros(SHAPE[0]), torch.ones(SHAPE[0])
    return build(backbone, {"width": 0.25}, SHAPE, CLASSES, mean, std, adapters=adapters).eval()


@pytest.fixture
def images():
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_pooling_against_loops(images):
    net = made(maps=3, scale=7.0).backbone
    maps, values = net.attended(images, {})
    assert (maps >= 0).all() and maps.shape[1] == 3
    found = net.features_of(maps, values)
    height, width = values.shape[2:]
    for b in range(len(images)):
        phi = [
            sum(maps[b, m, y, x] * values[b, c, y, x] for y in range(height) for x in range(width)) / (height * width)
            for m in range(3)
            for c in range(values.shape[1])
        ]
        rooted = torch.stack([each.sign() * (each.abs() + 1e-6).sqrt() for each in phi])
        assert torch.allclose(found[b], 7.0 * rooted / rooted.norm(), atol=1e-5)
    assert torch.allclose(net(images), found)
    assert net.feature_dim == 3 * values.shape[1]


def test_what_takes_the_place_of_maps(images):
    net = made().backbone
    maps, _ = net.attended(images, {})
    assert (net.instead(maps, "uniform") == 1).all()
    assert torch.equal(net.instead(maps, "shuffled"), torch.stack([maps[i - 1] for i in range(len(maps))]))
    assert torch.allclose(net.instead(maps, "mean"), maps.mean((2, 3))[..., None, None].expand_as(maps))
    other = net.instead(maps, "reversed")
    assert torch.allclose(other + maps, maps.amax((2, 3), keepdim=True).expand_as(maps)) and (other >= 0).all()
    net.train()
    torch.manual_seed(3)
    drawn = net.instead(maps, "uniform")
    assert drawn.min() >= 0 and 1.5 < drawn.max() < 2 and not drawn.requires_grad
    torch.manual_seed(3)
    assert torch.equal(net.instead(maps, "uniform"), drawn)


def test_maps_that_are_everywhere_alike_have_no_effect(images):
    model = made(counterfactual="mean")
    net = model.backbone
    torch.nn.init.zeros_(net.maps[0].weight)
    torch.nn.init.ones_(net.maps[1].bias)
    features, other = net.counterfactual(images)
    assert torch.equal(features, net(images)) and torch.allclose(features, other, atol=1e-4)


@pytest.mark.parametrize("before", [[], [("snn.spiking", {"steps": 2})], [("snn.qcfs", {})]], ids=str)
def test_features_are_those_of_forward(before, images):
    model = made(*before)
    with torch.no_grad():
        for weight in model.backbone.parameters():
            weight.mul_(4.0)  # spikes reach the last stage
    features, other = model.backbone.counterfactual(images)
    assert torch.allclose(features, model.backbone(images), atol=1e-5) and not torch.allclose(features, other)
    frames = torch.stack([images, images.flip(-1)], 1)
    assert torch.allclose(model.backbone.counterfactual(frames)[0], model.backbone(frames), atol=1e-5)
    outputs = model.outputs(images, ("counterfactual",))
    assert torch.allclose(outputs.logits, model(images), atol=1e-4)
    assert torch.allclose(outputs.counterfactual, model.head(other))


def test_the_loss_is_the_formula_and_its_gradient_reaches_the_maps(images):
    labels = torch.tensor([0, 2, 1, 1])
    setting = ObjectiveSetting(
        data=MemorySplit((images * 255).to(torch.uint8), labels), outputs=CLASSES, label_smoothing=0.0, device="cpu"
    )
    objective, model = counterfactual(EffectOfAttentionOptions(), setting), made(counterfactual="uniform").train()
    objective.begin(SimpleNamespace(model=model))
    batch = Batch(images, images, labels, torch.arange(4))
    outputs = model.outputs(images, objective.wants)
    loss = objective(outputs, batch, 0)
    effect = outputs.logits - outputs.counterfactual
    assert torch.allclose(loss, F.cross_entropy(outputs.logits, labels) / 3 + F.cross_entropy(effect, labels))
    assert torch.allclose(batch.losses.mean(), loss)
    loss.backward()
    assert model.backbone.maps[0].weight.grad.abs().sum() > 0


def test_effects_are_differences_image_by_image():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    others = torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    row = effects(logits, others, torch.tensor([0, 1, 1]))
    right = [(logits.softmax(1) - others.softmax(1))[i, k] for i, k in enumerate((0, 1, 1))]
    assert row["effect"] == pytest.approx(float(sum(right)) / 3) and row["effect_low"] < row["effect"]
    assert row["accuracy"] == pytest.approx(2 / 3) and row["other_accuracy"] == pytest.approx(2 / 3)
    assert row["effect_accuracy"] == pytest.approx(1 / 3)
    sheet = beside(torch.full((1, 8, 8), 7, dtype=torch.uint8), torch.tensor([[0.0, 2.0], [1.0, 0.5]]))
    assert sheet.shape == (64, 131, 3) and (sheet[:, :64] == 7).all()
    assert [sheet[y, x, 0].item() for y, x in ((0, 67), (0, -1), (-1, 67))] == [0, 255, 128]


def test_a_network_without_such_attention_is_refused():
    setting = ObjectiveSetting(
        data=MemorySplit(torch.zeros(2, *SHAPE, dtype=torch.uint8), torch.tensor([0, 1])),
        outputs=2,
        label_smoothing=0.0,
        device="cpu",
    )
    plain = build("mlp", {}, SHAPE, CLASSES, torch.zeros(2), torch.ones(2))
    with pytest.raises(UserError, match=r"must be Counterfactual; got .*Use --adapter causal"):
        counterfactual(EffectOfAttentionOptions(), setting).begin(SimpleNamespace(model=plain))
    registry = Registry.discover()
    feedback = in_full(registry, "adapters", "feedback.gated", {})
    attention = in_full(registry, "adapters", NAME, {})
    with pytest.raises(UserError, match="Staged"):
        build("vgg-tiny", {}, SHAPE, CLASSES, torch.zeros(2), torch.ones(2), adapters=[feedback, attention])
    around = build("vgg-tiny", {}, SHAPE, CLASSES, torch.zeros(2), torch.ones(2), adapters=[attention, feedback])
    assert around.backbone.steps == 4
