"""Spiking networks run stage by stage and step by step compute what they compute as a whole, to the last bit."""

import pytest
import torch
from torch import nn

from engram.backbone.contract import Remembering, Staged
from engram.backbone.errors import UserError
from engram.backbone.nets.blocks import StaticBackbone
from engram.snn.conversion.balancing import Thresholds
from engram.snn.conversion.convert import lower, with_neurons
from engram.snn.readout.adapter import readout
from engram.snn.readout.options import ReadoutOptions
from engram.snn.training.adapter import spiking
from engram.snn.training.options import QCFSOptions, SpikingOptions
from engram.snn.training.qcfs import qcfs

STEPS = 5


def converted(net, steps=STEPS, units=0.5, analog=0, **options):
    graph = lower(net)
    names = [name for name, module in graph.named_modules() if isinstance(module, nn.ReLU)][analog:]
    never = torch.zeros(1, dtype=torch.bool)
    found = {name: Thresholds(torch.tensor([units]), never) for name in names}
    return with_neurons(net, graph, found, steps, **options)


def trained(net, **options):
    return spiking(net, SpikingOptions(**{"steps": STEPS, "neuron": "if"} | options)).eval()


MADE = {
    "spiking": trained,
    "leaky": lambda net: trained(net, neuron="adaptive-lif", refractory=1, learn_scale=True),
    "spiking from quantised": lambda net: trained(qcfs(net, QCFSOptions(threshold=2.0))),
    "since the first spike": lambda net: readout(trained(net), ReadoutOptions(code="latency")),
    "converted": converted,
    "converted, in units that round": lambda net: converted(net, units=0.3),
    "with an analog front": lambda net: converted(net, analog=1),
    "converted, made trainable": lambda net: trained(converted(net, units=0.3)),
}


@pytest.fixture(params=["residual", "pooled"])
def analog(request, residual_net, exact):
    """Networks without and with max pools, which look at earlier steps, before the first neurons too."""
    if request.param == "residual":
        return residual_net
    stages = [
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
    ]
    return exact(StaticBackbone((2, 8, 8), stages, nn.Sequential(nn.Flatten(), nn.Linear(24, 5), nn.ReLU())))


@pytest.fixture(params=MADE)
def net(request, analog):
    return MADE[request.param](analog)


@pytest.fixture(params=["image", "frames"])
def x(request, images):
    """Images, or recordings of four frames, two of them the same."""
    return images if request.param == "image" else torch.stack([images, images, -images, images.flip(0)], 1)


def by_hand(net, x, tap=None):
    """Features and the outputs of the stages, step by step, [S, B, ...]."""
    memory, features, stages = {}, [], []
    for image in x.unbind(1) if x.ndim == 5 else [x] * net.steps:
        value, kept = image, {name: each.clone() for name, each in memory.items()}
        before = dict(memory)
        outputs = []
        for index in range(len(net.stage_channels)):
            value = net.apply_stage(index, value, memory, tap)
            outputs.append(value)
        features.append(net.apply_tail(value, memory, tap))
        stages.append(outputs)
        assert all(torch.equal(before[name], each) for name, each in kept.items()), "nobody writes into old values"
    return torch.stack(features), [torch.stack(each) for each in zip(*stages, strict=True)]


@torch.no_grad()
def test_step_by_step_is_all_at_once(net, x):
    assert isinstance(net, Remembering) and isinstance(net, Staged)
    features, stages = by_hand(net, x)
    assert features.any() and torch.equal(features, net.forward_steps(x))
    for mine, each in zip(stages, net.stage_steps(x), strict=True):
        assert torch.equal(mine, each)
    assert torch.equal(net.apply_stage(0, x if x.ndim == 4 else x[:, 0]), stages[0][0]), "from rest"


@pytest.mark.parametrize("made", ["leaky", "with an analog front", "converted, made trainable"])
@torch.no_grad()
def test_a_tap_sees_the_neurons_and_what_it_puts_there_flows_on(residual_net, images, made):
    net, x = MADE[made](residual_net), images
    expected, mine = {}, {}
    net.forward_steps(x, lambda site, value: expected.setdefault(site.name, value.clone()))

    def tap(site, value):
        mine.setdefault(site.name, []).append(value.clone())
        return value

    features, _ = by_hand(net, x, tap)
    assert torch.equal(features, net.forward_steps(x))
    assert set(mine) == {f"graph.{name}" for name in net.neurons()}
    for name, values in mine.items():
        assert torch.equal(torch.cat(values), expected[name]), name
    silent, _ = by_hand(net, x, lambda site, value: torch.zeros_like(value))
    wanted = net.forward_steps(x, lambda site, value: value * 0 if site.name in mine else value)
    assert torch.equal(silent, wanted)


def test_gradients_are_those_of_the_whole(residual_net, images):
    net = trained(residual_net, learn_scale=True)
    by_hand(net, images)[0].square().sum().backward()
    mine = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    net.forward_steps(images).square().sum().backward()
    for each, whole in zip(mine, net.parameters(), strict=True):
        torch.testing.assert_close(each, whole.grad, rtol=1e-4, atol=1e-5)


def test_what_a_still_image_gives_before_the_neurons_runs_once(residual_net, images):
    net, calls = trained(residual_net), []
    net.graph.body.get_submodule("0.0").register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        by_hand(net, images)
        assert len(calls) == 1
        by_hand(net, torch.stack([images] * 3, 1))
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("options", "said"), [({"pre_simulation": 3}, "steps beforehand"), ({"frames": "anew"}, "whose frames are steps")]
)
def test_what_is_more_than_steps_is_refused(residual_net, images, options, said):
    with pytest.raises(UserError, match=said):
        converted(residual_net, **options).apply_stage(0, images, {})


def test_a_converted_network_passes_no_gradient(residual_net, images):
    with pytest.raises(UserError, match=r"snn\.spiking"):
        converted(residual_net).apply_stage(0, images.requires_grad_(), {})
