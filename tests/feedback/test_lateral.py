"""Recurrence within stages against loops written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.nets.making import adapt, build

SHAPE = (2, 8, 8)


def network(activation="relu", **options):
    torch.manual_seed(0)
    inner = build("vgg-tiny", {"activation": activation}, SHAPE, 3, torch.zeros(2), torch.ones(2)).backbone.eval()
    return inner, adapt(inner, "feedback.lateral", options)


def strong(net):
    """The same with blocks that do something, and something else at every step."""
    generator = torch.Generator().manual_seed(1)
    for module in net.paths.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.5, 0.5, generator)
            nn.init.normal_(module.running_mean, 0, 0.2, generator)
    return net


def block(path, step, x):
    """A CORnet-S block's three convolutions at a step, its norms those of the step; the first step has none."""
    layers = path.layers
    for conv, norm in ((layers[0], layers[1]), (layers[3], layers[4]), (layers[6], layers[7])):
        each = norm.norms[step - 1]
        x = F.conv2d(x, conv.weight, padding=conv.padding)
        x = F.batch_norm(x, each.running_mean, each.running_var, each.weight, each.bias)
        x = x.relu() if conv is not layers[6] else x
    return x


@pytest.mark.parametrize("unrolling", ["engineering", "biological"])
@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_it_begins_as_the_wrapped_network(images, unrolling, activation, training):
    inner, net = network(activation, unrolling=unrolling)
    assert [str(each) for each in net.connections] == ["layer2>layer2", "layer3>layer3"]
    found = net.train(training).forward_steps(images)[net.delay :]
    assert len(found) == 4 and torch.equal(found, inner.train(training)(images).expand(4, -1, -1))


@torch.no_grad()
def test_a_stage_goes_over_its_own_output_as_a_block_of_cornet(images):
    net = strong(network(connections="layer3>layer3", expansion=4)[1])
    assert net.paths[0].layers[0].weight.shape[0] == 4 * net.stage_channels[2]
    assert [len(norm.norms) for norm in net.paths.modules() if hasattr(norm, "norms")] == [3, 3, 3]
    r = images
    for stage in range(3):
        r = net.inner.apply_stage(stage, r)
    for step, found in enumerate(net.forward_steps(images)):
        r = (r + block(net.paths[0], step, r)).relu() if step else r
        torch.testing.assert_close(found, net.inner.apply_tail(r))


@pytest.mark.parametrize("unrolling", ["engineering", "biological"])
@torch.no_grad()
def test_what_earlier_stages_change_is_added(images, unrolling):
    net = strong(network(connections="layer2>layer2,layer3>layer3", norm="shared", unrolling=unrolling)[1])
    for path in net.paths:  # one norm for all steps, which `block` asks for by step
        for place in (1, 4, 7):
            path.layers[place].norms = [path.layers[place]] * 6
    inner, (second, third) = net.inner, net.paths
    features, delayed = net.forward_steps(images), unrolling == "biological"
    y1 = inner.apply_stage(0, images)
    y2 = y3 = r2 = r3 = None
    for step, found in enumerate(features):
        before2, was = r2, (y2, r2, y3, r3)
        if step or not delayed:
            y2 = inner.apply_stage(1, y1)
            r2 = y2 if was[1] is None else (was[1] + y2 - was[0] + block(second, 1, was[1])).relu()
        under = before2 if delayed else r2
        if under is not None:
            y3 = inner.apply_stage(2, under)
            r3 = y3 if was[3] is None else (was[3] + y3 - was[2] + block(third, 1, was[3])).relu()
        expected = torch.zeros_like(found) if r3 is None else inner.apply_tail(r3)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (features[-1] - features[net.delay]).abs().amax() > 0.01


def test_other_connections_are_refused_all_at_once():
    with pytest.raises(UserError) as refused:
        network(connections="layer3>layer1,layer2>layer2,features>layer2")
    said = str(refused.value).splitlines()
    assert len(said) == 2 and "layer3>layer1 in connections must be from a stage to itself" in said[0]
