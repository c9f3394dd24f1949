"""Lateral and top-down convolutions against the equations of Spoerer et al. 2017, written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.making import adapt, build


def network(backbone="vgg-tiny", shape=(2, 8, 8), **options):
    torch.manual_seed(0)
    return build(backbone, options, shape, 3, torch.zeros(2), torch.ones(2)).backbone.eval()


def normalised(x):
    """Spoerer et al. 2017, equation 3, with n = 5, c = 1, alpha = 1e-4 and beta = 0.5."""
    padded = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    return x / (1 + 1e-4 * sum(padded[:, k : k + x.shape[1]] for k in range(5))) ** 0.5


class LRN(nn.Module):
    def forward(self, x):
        return normalised(x)


def paper(lrn):
    """Two hidden layers, each of which ends before its nonlinearity."""
    torch.manual_seed(0)
    after = [nn.ReLU(), *([LRN()] if lrn else [])]
    stages = [nn.Conv2d(2, 6, 3, padding=1), nn.Sequential(*after, nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, padding=1))]
    return StaticBackbone((2, 8, 8), stages, nn.Sequential(*after, nn.AdaptiveMaxPool2d(1), nn.Flatten())).eval()


@pytest.mark.parametrize("lrn", [False, True], ids=["plain", "lrn"])
@torch.no_grad()
def test_around_stages_that_end_before_their_nonlinearity_it_is_the_paper(images, lrn):
    net = adapt(paper(lrn), "feedback.blt", {"lrn": lrn, "steps": 4})
    assert [str(each) for each in net.connections] == ["layer1>layer1", "layer2>layer2", "layer2>layer1"]
    for path in net.paths:
        nn.init.normal_(path.conv.weight, std=0.3)
    first, (*_, second) = net.inner.body
    lateral1, lateral2, top = (path.conv.weight for path in net.paths)
    assert top.shape == (5, 6, 2, 2)
    r1, r2 = torch.zeros(5, 6, 8, 8), torch.zeros(5, 5, 4, 4)  # the state before the first step
    for found in net.forward_steps(images * 3):
        fed = F.conv2d(r1, lateral1, padding=1) + F.conv_transpose2d(r2, top, stride=2)
        h1 = F.conv2d(images * 3, first.weight, first.bias, padding=1) + fed
        after = (lambda h: normalised(h.relu())) if lrn else torch.relu
        h2 = F.conv2d(F.max_pool2d(after(h1), 2), second.weight, second.bias, padding=1)
        h2 = h2 + F.conv2d(r2, lateral2, padding=1)
        r1, r2 = after(h1), after(h2)
        torch.testing.assert_close(found, r2.amax((2, 3)))


@pytest.mark.parametrize("unrolling", ["engineering", "biological"])
@pytest.mark.parametrize(
    ("backbone", "shape", "connections", "options"),
    [
        ("vgg-tiny", (2, 8, 8), None, {}),
        ("vgg-tiny", (2, 8, 8), None, {"activation": "leaky-relu"}),
        ("vgg-tiny", (2, 8, 8), None, {"activation": "gelu", "normalisation": "group"}),
        ("vgg-tiny", (2, 10, 10), "layer2>layer1,layer3>layer1", {}),  # sides of 5, 2 and 1
        ("resnet-tiny", (2, 8, 8), "layer2>layer1,layer4>layer1,features>layer2,layer3>layer3", {}),
    ],
)
@torch.no_grad()
def test_it_begins_as_any_network_it_is_put_around(backbone, shape, connections, options, unrolling):
    plain = network(backbone, shape, **options)
    net = adapt(plain, "feedback.blt", {"connections": connections, "unrolling": unrolling})
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    found = net.forward_steps(x)[net.delay :]
    assert len(found) == 4 and torch.equal(found, plain(x).expand(4, -1, -1))


@pytest.mark.parametrize("activation", ["relu", "leaky-relu"])
@torch.no_grad()
def test_sums_are_rectified_where_the_wrapped_network_does(images, activation):
    """A stage of a network with another nonlinearity goes on with the sum itself."""
    net = adapt(network(activation=activation), "feedback.blt", {"connections": "layer1>layer1", "norm": "shared"})
    nn.init.normal_(net.paths[0].conv.weight)
    inner, rectified = net.inner, F.relu if activation == "relu" else nn.Identity()
    drive = r = inner.apply_stage(0, images)
    for step, found in enumerate(net.forward_steps(images)):
        if step:
            r = rectified(drive + F.conv2d(r.relu(), net.paths[0].conv.weight, padding=1))
        expected = inner.apply_tail(inner.apply_stage(2, inner.apply_stage(1, r)))
        torch.testing.assert_close(found, expected)
    assert (r < 0).any() == (activation != "relu")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kernel": 4}, "--kernel must be odd, so that a kernel has a middle; got 4. Use 5."),
        ({"truncate": 2, "unrolling": "biological"}, "truncate with biological unrolling must be at least 3"),
        ({"connections": "layer1>layer2"}, "layer1>layer2 in .*connections must be one that leads back"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(UserError, match=said):
        adapt(network(), "feedback.blt", options)
