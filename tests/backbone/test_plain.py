"""Weights that are computed from other tensors: copies of such networks, and their plain form."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.folding import bake
from engram.backbone.nets.plain import copied


def deprecated(name):
    def apply(layer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            getattr(nn.utils, name)(layer)

    return apply


def pruned(layer):
    prune.random_unstructured(layer, "weight", 0.5)
    prune.l1_unstructured(layer, "weight", 0.3)
    prune.l1_unstructured(layer, "bias", 0.5)


COMPUTED = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "weight norm, hook": deprecated("weight_norm"),
    "spectral norm, hook": deprecated("spectral_norm"),
    "pruned": pruned,
}


@pytest.fixture(params=COMPUTED)
def net(request):
    """One whose weights belong to the graph of a backward pass, as they do in the middle of training."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    made = StaticBackbone((2, 6, 6), [nn.Sequential(*layers)], nn.Flatten())
    for layer in (layers[0], layers[2]):
        COMPUTED[request.param](layer)
    for _ in range(3):
        made(torch.randn(5, 2, 6, 6)).sum().backward()
    return made


def test_a_copy_computes_the_same_and_is_one(net):
    x = torch.randn(5, 2, 6, 6)
    twin = copied(net)
    for module in (net, twin):
        module.eval()
    expected = net(x)
    torch.testing.assert_close(twin(x), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    torch.testing.assert_close(net(x), expected)
    net(x).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_plain_form_has_the_weights_of_evaluation_and_leaves_the_network_alone(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    plain, x = bake(net), torch.randn(5, 2, 6, 6)
    names = {f"body.0.{place}.{kind}" for place in (0, 2) for kind in ("weight", "bias")}
    assert {name for name, _ in plain.named_parameters()} == names == set(plain.state_dict())
    assert {type(module) for module in plain.body[0]} == {nn.Conv2d, nn.ReLU}
    assert plain.training and plain.body[0][0].training
    net.train()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    torch.testing.assert_close(plain(x), net.eval()(x))
    net.train()(x).sum().backward()
