"""Complementary attention: two streams that lose nothing, heads of environments, and environments that are found."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.contract import Batch, Halves, ObjectiveSetting, Outputs
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.hardware import Machine
from engram.backbone.nets.making import build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.causal.attention.complementary import spread
from engram.causal.attention.parting import parted, penalty
from engram.causal.attention.streams import StreamNorm
from engram.causal.objectives.attention_options import ComplementaryTrainingOptions
from engram.causal.objectives.complementary import complementary
from engram.causal.slopes import slopes

SHAPE, CLASSES = (2, 8, 8), 3
OPTIONS = TrainingOptions(epochs=4, batch_size=8, optimizer="sgd", lr=0.02, schedule="constant")


def made(*before, head="linear", **options):
    registry = Registry.discover()
    adapters = [*(in_full(registry, "adapters", name, own) for name, own in before)]
    adapters.append(in_full(registry, "adapters", "causal.complementary", {"environments": 2, **options}))
    torch.manual_seed(0)
    mean, std = torch.zeros(SHAPE[0]), torch.ones(SHAPE[0])
    made_of = in_full(registry, "heads", head, {})
    return build("vgg-tiny", {"width": 0.25}, SHAPE, CLASSES, mean, std, made_of, adapters).eval()


def pictures(count=32):
    random = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % CLASSES
    images = torch.randint(0, 128, (count, *SHAPE), generator=random, dtype=torch.uint8)
    images[torch.arange(count), 0, 2 * labels] += 100
    return MemorySplit(images, labels)


@pytest.fixture
def images():
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("attended", [1, 2, 9])
def test_nothing_is_lost_on_the_way(attended, images):
    net = made(attended=attended).double().backbone
    streams = net.streams(images.double(), ({}, {}))
    value, rest = images.double(), None
    for index, (kept, left) in enumerate(streams):
        value = net.inner.apply_stage(index, value)
        if index < net.first:
            assert torch.equal(kept, value) and left is None
            continue
        for norm in net.norms:
            norm.stream = 1
        rest = torch.zeros_like(value) if rest is None else net.inner.apply_stage(index, rest)
        for norm in net.norms:
            norm.stream = 0
        gates = net.gates[index - net.first](value)
        assert (gates > 0).all() and (gates < 1).all()
        assert torch.equal(kept, gates * value)
        assert torch.allclose(kept + left, value + rest, rtol=0, atol=1e-14)
        value, rest = kept, left
    assert net.first == max(0, len(streams) - attended)


@pytest.mark.parametrize("before", [[], [("snn.spiking", {"steps": 2})]], ids=str)
def test_features_are_those_of_what_is_let_through(before, images):
    model = made(*before)
    for norm in model.backbone.norms:  # features do not look at the second stream's
        torch.nn.init.uniform_(norm.norms[1].weight, 1, 2)
    for x in (images, torch.stack([images, images.flip(-1)], 1)):
        kept, halves = model.backbone.halves(x)
        assert torch.allclose(kept, model.backbone(x), atol=1e-6)
        assert halves.environments.shape == (2, 4, CLASSES) and halves.mixed.shape == (4, CLASSES)
    outputs = model.outputs(images, ("halves",))
    assert torch.allclose(outputs.logits, model(images), atol=1e-6)
    assert outputs.halves.spread == 0  # all heads begin as the classifier's
    assert torch.equal(outputs.halves.environments[0], outputs.halves.environments[1])
    assert torch.allclose(outputs.halves.environments[0], outputs.logits, atol=1e-6)


def test_each_stream_has_statistics_of_its_own(images):
    net = made(attended=2).backbone.train()
    assert [type(norm) for norm in net.norms] == [StreamNorm] and net.first == 1  # of three stages the last one
    net.halves(images)
    first, second = net.norms[0].norms
    assert first.num_batches_tracked == second.num_batches_tracked == 1
    assert not torch.allclose(first.running_mean, second.running_mean)
    net(images)
    assert (first.num_batches_tracked, second.num_batches_tracked) == (2, 1)


def test_the_classifiers_head_is_the_mean_of_all_heads(images):
    model = made(environments=3)
    net = model.backbone
    with torch.no_grad():
        net.apart.normal_(generator=torch.Generator().manual_seed(2))
        net.apart_bias.normal_(generator=torch.Generator().manual_seed(3))
    kept, halves = net.halves(images)
    assert torch.allclose(halves.environments.mean(0), model(images), atol=1e-5)
    heads = model.head.weight + net.apart - net.apart.mean(0)
    for each, bias, logits in zip(heads, net.apart_bias - net.apart_bias.mean(0), halves.environments, strict=True):
        assert torch.allclose(logits, kept @ each.T + model.head.bias + bias, atol=1e-5)
    ratios = [((each - heads.mean(0)).norm() / each.abs().sum()) ** 2 for each in heads]
    assert torch.allclose(halves.spread, sum(ratios) / 3) and torch.allclose(spread(heads), halves.spread)
    assert torch.allclose(halves.mixed, net.mixing(kept + halves.rest), atol=1e-6)


def test_the_loss_against_loops():
    random = torch.Generator().manual_seed(0)
    data = pictures(6)
    setting = ObjectiveSetting(data=data, outputs=CLASSES, label_smoothing=0.0, device="cpu")
    objective = complementary(ComplementaryTrainingOptions(agreement=7.0), setting)
    objective.lots = torch.tensor([0, 1, 0, 2, 0, 1])
    of_heads, mixed = torch.randn(4, 5, CLASSES, generator=random), torch.randn(5, CLASSES, generator=random)
    logits, labels = torch.randn(5, CLASSES, generator=random), torch.tensor([0, 1, 2, 0, 1])
    halves = Halves(torch.zeros(5, 2), of_heads, mixed, torch.tensor(0.25))
    batch = Batch(torch.zeros(4, *SHAPE), torch.zeros(5, *SHAPE), labels, torch.tensor([3, 0, 4, 1]))
    rows = {2: [0], 0: [1, 2], 1: [3]}  # the fifth row was replayed: the classifier's head has it
    each = [F.cross_entropy(of_heads[e, places], labels[places]) for e, places in rows.items()]
    expected = (sum(each) + F.cross_entropy(logits[4:], labels[4:])) / 4 + 7 * 0.25 + F.cross_entropy(mixed, labels)
    assert torch.allclose(objective(Outputs(logits, halves=halves), batch, 0), expected)
    offered = torch.tensor([True, True, False])
    masked = logits.masked_fill(~offered, -1e4)
    part = Batch(torch.zeros(4, *SHAPE), torch.zeros(5, *SHAPE), labels.clamp(max=1), torch.tensor([3, 0, 4, 1]))
    assert objective(Outputs(masked, halves=halves, offered=offered), part, 1) < 20


def test_slopes_are_the_derivative_by_a_factor():
    random = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(9, 4, generator=random).double(), torch.randint(4, (9,), generator=random)
    factor = torch.ones(9, 1, dtype=torch.float64, requires_grad=True)
    loss = F.cross_entropy(factor * logits, labels, reduction="sum")
    assert torch.allclose(slopes(logits, labels), torch.autograd.grad(loss, factor)[0][:, 0])


@pytest.mark.parametrize("environments", [2, 3])
def test_environments_are_about_the_best_there_are(environments):
    random = torch.Generator().manual_seed(4)
    slope = torch.randn(60, generator=random)
    slope = slope / slope.std()
    order, best = slope.argsort(), 0.0
    for cuts in combinations(range(1, 60), environments - 1):  # the best parting is one of the sorted line
        ends = (0, *cuts, 60)
        shares = torch.zeros(60, environments)
        for e in range(environments):
            shares[order[ends[e] : ends[e + 1]], e] = 1
        best = max(best, float(penalty(slope, shares)))
    found = F.one_hot(parted(slope, environments, 200, random), environments).float()
    assert 0.9 * best < penalty(slope, found) <= best + 1e-5


def test_what_misleads_parts_the_images():
    random = torch.Generator().manual_seed(5)
    labels = torch.randint(2, (400,), generator=random)
    misled = torch.rand(400, generator=random) < 0.2
    logits = F.one_hot(torch.where(misled, 1 - labels, labels), 2) * 2.0
    found = parted(slopes(logits, labels), 2, 200, random)
    assert max(((found == 1) == misled).double().mean(), ((found == 0) == misled).double().mean()) > 0.99
    again = parted(slopes(logits, labels), 2, 200, torch.Generator().manual_seed(6))
    assert torch.equal(again, parted(slopes(logits, labels), 2, 200, torch.Generator().manual_seed(6)))


def trainer(data):
    model = made()
    setting = ObjectiveSetting(data=data, outputs=CLASSES, label_smoothing=0.0, device="cpu")
    objective = complementary(ComplementaryTrainingOptions(every=1, rounds=20, agreement=10.0), setting)
    return Trainer(model, data, OPTIONS, Machine("cpu", "fp32"), objective)


def test_a_training_that_parts_its_images_resumes_to_the_last_bit():
    data = pictures()
    whole, again = trainer(data), trainer(data)
    first = whole.objective.lots.clone()
    while whole.step < 6:  # an epoch has four steps
        whole.advance(0.0)
    assert whole.objective.partings == 1 and not torch.equal(whole.objective.lots, first)
    assert whole.model.training and all(norm.stream == 0 for norm in whole.model.backbone.norms)
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    for each in (whole, again):
        while not each.done:
            each.advance(0.0)
    assert whole.objective.partings == again.objective.partings == 3
    assert torch.equal(whole.objective.lots, again.objective.lots)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert whole.model.backbone.apart.abs().max() > 0


def test_what_it_refuses(images):
    with pytest.raises(UserError, match="complementary must be odd"):
        made(kernel=4)
    with pytest.raises(UserError, match="must be a linear layer; got Cosine"):
        made(head="cosine").backbone.halves(images)
    assert made(head="cosine")(images).shape == (4, CLASSES)  # without the objective any head will do
    data = pictures()
    setting = ObjectiveSetting(data=data, outputs=CLASSES, label_smoothing=0.0, device="cpu")
    objective = complementary(ComplementaryTrainingOptions(), setting)
    plain = build("vgg-tiny", {"width": 0.25}, SHAPE, CLASSES, torch.zeros(2), torch.ones(2))
    with pytest.raises(UserError, match=r"must be Complementary; got .* Use --adapter causal\.complementary"):
        Trainer(plain, data, OPTIONS, Machine("cpu", "fp32"), objective)
