"""Interventions on networks that are put together: converted, recurrent around spikes, brought along, on recordings."""

import pytest
import torch
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.nets.parted import classifier
from engram.backbone.nets.tapped import sites, tapped_steps
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.causal import collected, do
from engram.causal.intervening.place import Place
from engram.feedback import look
from engram.snn.conversion.balancing import Thresholds
from engram.snn.conversion.convert import lower, with_neurons

SHAPE = (2, 8, 8)
GATED = ("feedback.gated", {"connections": "layer3>layer1,layer2>layer1"})
SPIKING = ("snn.spiking", {"steps": 3})


def made(*adapters, backbone="vgg-tiny"):
    registry = Registry.discover()
    torch.manual_seed(0)
    named = [in_full(registry, "adapters", name, options) for name, options in adapters]
    model = build(backbone, {"width": 0.25}, SHAPE, 3, torch.zeros(2), torch.ones(2), adapters=named).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3 + 0.1)
    return model


@pytest.fixture
def images():
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))


def by_hand(net, x, name, change):
    """Features of every step with ``change(step, value [B, ...])`` at one site."""

    def tap(site, value):
        if site.name != name:
            return value
        return torch.stack([change(site.step + k, part.clone()) for k, part in enumerate(value)])

    return tapped_steps(net, x, tap)


@torch.no_grad()
def test_a_connection_is_a_place_too_and_is_switched_off(images):
    model = made(GATED)
    off = look(model, images, off="layer3>layer1")
    with do(model, name="layer3>layer1").set(model.backbone.neutral):
        torch.testing.assert_close(look(model, images).logits, off.logits)
        torch.testing.assert_close(model(images), off.logits[-1])
    assert not torch.equal(model(images), off.logits[-1])


@torch.no_grad()
@pytest.mark.parametrize(
    "adapters", [(GATED,), (("snn.spiking", {"steps": 3}),), (("snn.spiking", {"steps": 3}), GATED)]
)
def test_frames_are_steps(images, adapters):
    """A recording takes a step for each frame: a site of it is set in one of them, the images as well."""
    model = made(*adapters)
    frames = torch.stack([images, images.flip(0), images * 0.5, images, images**2], 1)
    x = model.normalise(frames)
    name = next(site.name for site in sites(model.backbone) if site.stage is None)
    expected = by_hand(model.backbone, x, name, lambda step, value: value * 0 + 1 if step in (1, 4) else value)
    with do(model, name=name, step=(4, 1)).set(1.0):
        assert torch.equal(model.backbone.forward_steps(x), expected)
    changed = x.clone()
    changed[:, 3] = x[:, 3].mean(0)
    with do(model, name="input", step=3).mean():
        found = model.backbone.forward_steps(x)
    plain = model.backbone.forward_steps(x)
    assert torch.equal(found, model.backbone.forward_steps(changed)) and not torch.equal(found, plain)
    (values,) = collected(model, frames, [Place(2, steps=(4, 0))], batch=3)
    whole = collected(model, frames, [Place(2)])[0]
    assert values.shape[:2] == (2, 4)
    torch.testing.assert_close(values, whole[[0, 4]])
    with do(model, stage=2, step=(4, 0)).resample(frames):
        torch.testing.assert_close(model.backbone.forward_steps(x), plain)


@torch.no_grad()
def test_frames_are_steps_of_a_network_without_any(images):
    model = made()
    frames = torch.stack([images, images.flip(0), images * 0.5], 1)
    with do(model, stage=1, step=1).zero():
        found = model.backbone.forward_steps(model.normalise(frames))
    with do(model, stage=1).zero():
        zeroed = model.backbone.forward_steps(model.normalise(frames))
    plain = model.backbone.forward_steps(model.normalise(frames))
    assert torch.equal(found[1], zeroed[1]) and torch.equal(found[[0, 2]], plain[[0, 2]])
    message = r"steps of stages.1 whose values are taken must be among those there are values of \(0\); got 1"
    with pytest.raises(UserError, match=message), do(model, stage=1).resample(images):
        model(frames)


@torch.no_grad()
@pytest.mark.parametrize("delay", [0, 2])
def test_a_converted_network_is_changed_spike_by_spike(images, delay):
    net = made().backbone
    graph, never = lower(net), torch.zeros(1, dtype=torch.bool)
    names = [name for name, module in graph.named_modules() if isinstance(module, nn.ReLU)]
    net = with_neurons(net, graph, {n: Thresholds(torch.full((1,), 2.0), never) for n in names}, 5, delay=delay)
    site = next(site.name for site in sites(net) if site.stage is None)

    def silent(step, value):
        return value * 0 if step in (1, 3) else value

    expected, plain = by_hand(net, images, site, silent), net.forward_steps(images)
    with do(net, name=site, step=(1, 3)).zero():
        assert torch.equal(net.forward_steps(images), expected)
    assert not torch.equal(expected, plain) and torch.equal(net.forward_steps(images), plain)
    with do(net, stage=1).mean(images):  # a mean of spikes is none
        rates = net.forward_steps(images)
    assert torch.equal(rates, rates[:, :1].expand_as(rates))


class Theirs(nn.Module):
    """A classifier in somebody's code, with functions for activations."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act, self.fc = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.act(self.norm(self.conv(x))) - 0.1).mean((2, 3)))


@torch.no_grad()
def test_networks_that_came_as_code_are_changed_as_they_are(images):
    torch.manual_seed(0)
    net = Theirs().eval()
    model = classifier(net, images)
    with do(model, name="net.act", channel=2).mean():
        found = model(images)
    hidden = net.act(net.norm(net.conv(images)))
    hidden[:, 2] = hidden[:, 2].mean(0)
    expected = net.fc(torch.relu(hidden - 0.1).mean((2, 3)))
    torch.testing.assert_close(found, expected)
    with do(net, name="act", channel=2).mean():
        torch.testing.assert_close(net(images), expected)
