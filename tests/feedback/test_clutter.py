"""The task of Spoerer et al. 2017: which digits were found, the six networks, and how an experiment names them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.data.load import load
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.options import Checker, in_full
from engram.backbone.registry import Registry
from engram.backbone.testing.workshop import Told
from engram.feedback.clutter.configs import ClutterConfig
from engram.feedback.clutter.experiment import Clutter
from engram.feedback.clutter.measure import Found, exact, found, look
from engram.feedback.clutter.networks import options_of
from engram.feedback.network.local_response import local_response

NETWORKS = ("B", "BF", "BK", "BT", "BL", "BLT")
PARAMETERS = {"B": 9898, "BF": 38218, "BK": 26794, "BT": 13994, "BL": 28330, "BLT": 32426}
"""Weights and biases, the read-out's included, counted by hand: 2 x (maps + maps * kernel ** 2 * inputs) + 10 x (maps +
1), and maps ** 2 times 9 for each lateral and 4 for each top-down connection."""


def made(network):
    parts = options_of(network, 32)
    registry = Registry.discover()
    own = {key.removeprefix("blt."): value for key, value in parts["adapter_options"].items()}
    adapters = [in_full(registry, "adapters", name, own) for name in parts["adapter"]]
    torch.manual_seed(0)
    one = torch.ones(1)
    return build(parts["backbone"], parts["backbone_options"], (1, 32, 32), 10, 0 * one, one, adapters=adapters).eval()


@pytest.fixture(scope="module")
def data():
    small = {"train_images": 90, "validation_images": 10, "test_images": 30}
    return load("digit-clutter:digits", small, root=Path("nowhere"))


@pytest.mark.parametrize(("steps", "classes"), [(1, 4), (3, 4), (3, 7)])
def test_what_is_found_against_sets(steps, classes):
    random = torch.Generator().manual_seed(classes)
    logits = torch.randn(steps, 40, classes, generator=random)
    present = torch.rand(40, classes, generator=random) < 0.4
    present[torch.arange(40), torch.randint(classes, (40,), generator=random)] = True
    whole, share = exact(logits, present), found(logits, present)
    for step, image in product(range(steps), range(40)):
        there = set(present[image].nonzero()[:, 0].tolist())
        top = set(logits[step, image].argsort(descending=True)[: len(there)].tolist())
        assert whole[step, image] == (top == there)
        assert share[step, image].item() == pytest.approx(len(top & there) / len(there))
    sums = Found(steps)
    for part in (slice(0, 25), slice(25, 40)):
        sums.add(logits[:, part], present[part])
    for step, row in enumerate(sums.rows()):
        target = present.double()
        assert row["steps"] == step + 1 and row["accuracy"] == pytest.approx(whole[step].double().mean().item())
        assert row["found"] == pytest.approx(share[step].double().mean().item())
        loss = F.binary_cross_entropy(logits[step].double().sigmoid(), target)
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_what_is_as_strong_as_what_is_absent_is_not_found():
    assert not exact(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([True, False, False]))
    assert exact(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([True, True, False]))
    assert exact(torch.zeros(2), torch.tensor([True, True]))  # nothing is absent


@pytest.mark.parametrize("network", NETWORKS)
def test_the_networks_have_as_many_parameters_as_the_equations_say(network):
    model = made(network)
    assert sum(each.numel() for each in model.parameters()) == PARAMETERS[network]
    assert model.backbone.steps == (4 if "T" in network or "L" in network else 1)


@torch.no_grad()
def test_the_bottom_up_network_is_the_paper(data):
    model = made("B")
    x = model.normalise(data.test.images)
    first, second = model.backbone.body[0], model.backbone.body[1][-1]
    h1 = F.relu(F.conv2d(x, first.weight, first.bias, padding=1))
    h2 = F.relu(F.conv2d(F.max_pool2d(normalised(h1), 2), second.weight, second.bias, padding=1))
    torch.testing.assert_close(model.backbone(x), normalised(h2).amax((2, 3)))
    blt = made("BLT").backbone.forward_steps(x)
    assert torch.equal(blt, model.backbone(x).expand(4, -1, -1))  # recurrence begins as nothing


def normalised(x):
    padded = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    return x / (1 + 1e-4 * sum(padded[:, k : k + x.shape[1]] for k in range(5))) ** 0.5


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_local_response_is_torchs(channels):
    x = 20 * torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(local_response(x), F.local_response_norm(x, 5, alpha=5e-4, beta=0.5, k=1.0))
    x.requires_grad_()
    ours, theirs = (
        torch.autograd.grad(f(x).square().sum(), x)[0]
        for f in (local_response, lambda x: F.local_response_norm(x, 5, alpha=5e-4, beta=0.5, k=1.0))
    )
    torch.testing.assert_close(ours, theirs)


def test_noise_is_the_same_for_every_network_and_makes_it_harder(data):
    model, seen = made("BL"), []
    model.normalise.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].clone()))
    for noise in (0.0, 0.2, 0.2):
        look(model, data.test, "cpu", noise, lambda images: None)
    clean, noisy, again = seen
    assert torch.equal(clean, data.test.images) and torch.equal(noisy, again)
    difference = (noisy.float() - clean.float())[clean == 119]
    assert abs(difference.std() / 255 - 0.2) < 0.01 and abs(difference.mean()) < 2
    assert not model.training and model.train() is model
    look(model, data.test, "cpu", say=lambda images: None)
    assert model.training  # as it was


def test_data_without_the_column_are_refused(data):
    plain = MemorySplit(data.test.images, data.test.labels)
    with pytest.raises(UserError, match="--dataset must be one with a column 'present'"):
        look(made("B"), plain, "cpu")


def resolved(**given):
    checker = Checker(Registry.discover(), lambda name: f"--{name}", "")
    values = checker.check(ClutterConfig, given)
    checker.require()
    return ClutterConfig.resolve(values)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_says_what_it_is_made_of(network):
    config = resolved(network=network, maps=8)
    assert config.backbone == "feedback.spoerer" and config.backbone_options["maps"] == (16 if network == "BF" else 8)
    assert resolved(network=network).backbone_options.get("kernel", 3) == (5 if network == "BK" else 3)
    assert config.adapter == (("feedback.blt",) if network in ("BT", "BL", "BLT") else ())
    assert ClutterConfig.resolve(vars(config)) == config
    assert (config.objective, config.discount) == ("present", 1.0)


def test_other_networks_take_its_place():
    assert resolved().network == "BLT"
    longer = resolved(network="BL", adapter=["feedback.blt"], adapter_options={"steps": 8})
    assert longer.adapter_options == {"blt.connections": "layer1>layer1,layer2>layer2", "blt.lrn": True, "blt.steps": 8}
    other = resolved(backbone="vgg-tiny", adapter=["feedback.gated"])
    assert other.network is None and other.adapter == ("feedback.gated",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"network": "BT", "backbone": "vgg-tiny"}, "--backbone must be as --network BT has it; got vgg-tiny"),
        (
            {"network": "BK", "backbone_options": {"kernel": 3}},
            "--backbone.kernel must be as --network BK has it; got 3",
        ),
        ({"network": "B", "adapter": ["feedback.gated"]}, "--adapter must be as --network B has it"),
        ({"network": "BL", "from": "x"}, "--from must be left out beside --network; got x"),
        ({"backbone": "vgg-tiny", "maps": 8}, "--maps must be left out without --network; got 8"),
    ],
)
def test_what_contradicts_a_network_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        resolved(**given)


def test_networks_without_normalisation_and_what_is_shown(data):
    config = resolved(network="BT", maps=8, lrn=False)
    assert config.backbone_options == {"maps": 8, "lrn": False}
    assert config.adapter_options == {"blt.connections": "layer2>layer1"}
    assert ClutterConfig.resolve(vars(config)) == config
    with pytest.raises(UserError, match="--lrn must be left out without --network; got False"):
        resolved(backbone="vgg-tiny", lrn=False)
    model = made("B")
    pictures = Clutter(config, Told(Path(), Path(), {})).shown(model, data)
    best = model(data.test.images[:1]).topk(3).indices[0].sort().values.tolist()
    held = data.test.columns["present"][0].nonzero()[:, 0].tolist()
    assert pictures.captions[0] == f"{' '.join(map(str, held))}; found {' '.join(map(str, best))}"
    assert len(pictures.pictures) == len(pictures.captions) == 12
