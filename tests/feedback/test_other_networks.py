"""Feedback around networks of every kind: quantised, spiking, converted, and those that are cut out of their graphs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engram.backbone.contract import Named
from engram.backbone.errors import UserError
from engram.backbone.nets.making import adapt, build
from engram.backbone.nets.tapped import sites, tapped_steps
from engram.backbone.nets.traced import TracedBackbone

SHAPE = (2, 8, 8)
STEPS = 3
SPIKING = {"steps": STEPS, "threshold": 0.2}
CHAINS = {
    "quantised": {"snn.qcfs": {"threshold": 0.05}},
    "spiking": {"snn.spiking": SPIKING},
    "spiking from quantised": {"snn.qcfs": {}, "snn.spiking": {**SPIKING, "neuron": "if", "learn_scale": True}},
}


def network(adapters, backbone="vgg-tiny", **options):
    torch.manual_seed(0)
    mean, std = torch.zeros(SHAPE[0]), torch.ones(SHAPE[0])
    chain = [Named(name, 1, given) for name, given in adapters.items()]
    return build(backbone, options, SHAPE, 3, mean, std, adapters=chain).eval().backbone


def excited(net):
    """With paths that do something."""
    for number, path in enumerate(net.paths):
        nn.init.normal_(path.conv.weight, generator=torch.Generator().manual_seed(number))
    return net


@pytest.fixture(params=CHAINS)
def chain(request):
    return CHAINS[request.param]


@pytest.fixture(params=["image", "frames"])
def x(request, images):
    return images if request.param == "image" else torch.stack([images, 1 - images, images.flip(0), images], 1)


@pytest.mark.parametrize("adapter", ["feedback.gated", "feedback.additive"])
@torch.no_grad()
def test_a_fresh_one_is_the_wrapped_network_at_every_step(chain, adapter, x):
    plain, net = network(chain), network({**chain, adapter: {}})
    expected, found = plain.forward_steps(x), net.forward_steps(x)
    if x.ndim == 4 and plain.steps == 1:
        expected = expected.expand_as(found)
    assert found.any() and torch.equal(found, expected)
    if plain.steps > 1:
        assert net.steps == STEPS and net.readout == plain.readout and torch.equal(net(x), plain(x))


@torch.no_grad()
def test_a_tap_sees_every_layer_of_the_wrapped_network_at_every_step(chain, images):
    net = excited(network({**chain, "feedback.gated": {}}))
    found = sites(net)
    names = {site.name for site in found}
    layers = [
        name
        for name, module in network(chain).named_modules()
        if type(module).__name__ in ("QCFS", "SpikingActivation")
    ]
    assert layers and {f"inner.{name}" for name in layers} <= names
    for name in ("stages.0", "stages.2", "features", f"inner.{layers[-1]}"):
        assert [site.step for site in found if site.name == name] == list(range(net.steps))
    seen = tapped_steps(net, images, lambda site, value: value.clone())
    assert torch.equal(seen, net.forward_steps(images))
    silent = tapped_steps(net, images, lambda site, value: value * 0 if site.name == f"inner.{layers[-1]}" else value)
    assert not torch.equal(silent, seen)


def test_spikes_of_the_step_before_change_what_a_stage_gives(images):
    """By hand: neurons of a stage, a mean of what the last stage sent so far, its gain."""
    net = excited(network({"snn.spiking": SPIKING, "feedback.gated": {"connections": "layer3>layer1"}}))
    memory, sent, (path,) = {}, [], net.paths
    expected = []
    with torch.no_grad():
        for step in range(STEPS):
            value = net.inner.apply_stage(0, images, memory)
            if step:
                weights = torch.tensor([1.0, 4.0, 10.0])[:step, None, None, None, None]  # binomials, (k + 1 over 3)
                current = (weights * torch.stack(sent)).sum(0) / weights.sum()
                gain = 1 + path.conv(path.norm(current)).tanh()
                value = value * nn.functional.interpolate(gain, value.shape[-2:])
            value = net.inner.apply_stage(2, net.inner.apply_stage(1, value, memory), memory)
            sent.append(value)
            expected.append(net.inner.apply_tail(value, memory))
        assert torch.allclose(net.forward_steps(images), torch.stack(expected), atol=1e-5)


def test_all_weights_are_trained_through_spikes_and_time(chain, images):
    net = excited(network({**chain, "feedback.gated": {}})).train()
    net(images).square().sum().backward()
    without = [name for name, each in net.named_parameters() if each.grad is None or not each.grad.isfinite().all()]
    assert without == []
    assert all(bool(each.conv.weight.grad.any()) for each in net.paths)


def test_steps_are_those_of_the_spiking_network():
    with pytest.raises(UserError, match="the steps of feedback must be left out on a network that has 3 steps"):
        network({"snn.spiking": SPIKING, "feedback.gated": {"steps": 5}})


@pytest.mark.parametrize("flattening", ["view(n, -1) of the images"], indirect=True)
@torch.no_grad()
def test_a_stranger_is_cut_out_of_its_graph(stranger):
    x = torch.rand(4, 3, 8, 8)
    net = adapt(stranger.eval(), "feedback.gated", {"norm": "shared"})
    assert isinstance(net.inner, TracedBackbone)
    assert torch.allclose(net.forward_steps(x), stranger(x).expand(4, -1, -1), atol=1e-6)
    quantised = adapt(adapt(stranger, "snn.qcfs", {}), "feedback.gated", {"norm": "shared"})
    assert excited(quantised).forward_steps(x).shape == (4, 4, 12)


@pytest.mark.parametrize("adapter", ["snn.qcfs", "snn.spiking"])
def test_what_is_made_of_graphs_goes_before_feedback(adapter):
    with pytest.raises(UserError, match="must be Traceable"):
        network({"feedback.gated": {}, adapter: {}})
