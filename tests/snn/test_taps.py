"""Taps on spiking networks and on adapters over adapters: step by step, whatever runs underneath."""

from collections import defaultdict
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from engram.backbone.contract import Graphed, Site, Staged
from engram.backbone.errors import UserError
from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.tapped import sites
from engram.snn.conversion.balancing import Thresholds
from engram.snn.conversion.convert import lower, with_neurons
from engram.snn.simulation import crossover, events
from engram.snn.training.adapter import spiking
from engram.snn.training.options import QCFSOptions, SpikingOptions
from engram.snn.training.qcfs import qcfs

STEPS = 6
ENGINES = {"snntorch": {}, "norse": {"surrogate": "superspike", "slope": 1.0}}


def converted(net, steps=STEPS, **options):
    graph, never = lower(net), torch.zeros(1, dtype=torch.bool)
    names = [name for name, module in graph.named_modules() if isinstance(module, nn.ReLU)]
    found = {name: Thresholds(torch.full((1,), 2.0), never) for name in names}
    return with_neurons(net, graph, found, steps, **options)


def trained(net, **options):
    return spiking(net, SpikingOptions(**{"steps": STEPS, "neuron": "if"} | options)).eval()


MADE = {
    "spiking": trained,
    **{
        f"spiking, {name}": (lambda net, name=name, more=more: trained(net, engine=name, neuron="lif", **more))
        for name, more in ENGINES.items()
        if find_spec(name)
    },
    "spiking in pieces": lambda net: trained(net, truncate=2),
    "quantised": lambda net: qcfs(net, QCFSOptions(threshold=2.0)).eval(),
    "spiking from quantised": lambda net: trained(qcfs(net, QCFSOptions(threshold=2.0))),
    "converted": converted,
    "converted and late": lambda net: converted(net, delay=2),
    "converted and known beforehand": lambda net: converted(net, pre_simulation=3),
    "converted, made trainable": lambda net: trained(converted(net)),
}


@pytest.fixture(params=MADE)
def net(request, residual_net):
    return MADE[request.param](residual_net)


@pytest.fixture(params=["image", "frames"])
def x(request, images):
    """Images, or recordings of four frames."""
    return images if request.param == "image" else torch.stack([images, -images, images / 2, images.flip(0)], 1)


def collect(net, x):
    found = {}

    def tap(site, value):
        found.setdefault(site, []).append(value.clone())
        return value

    return net.forward_steps(x, tap), found


def put(values):
    """A tap that puts values in the place of what is at their sites."""
    return lambda site, value: values.get(site, value)


@torch.no_grad()
def test_a_tap_sees_every_step_and_changes_nothing_by_itself(net, x):
    expected = net.forward_steps(x)
    steps, found = collect(net, x)
    assert torch.equal(steps, expected) and torch.equal(net.forward_steps(x, lambda _, value: value.clone()), expected)
    assert set(found) == set(sites(net, x.shape[1] if x.ndim == 5 else None)) and {len(v) for v in found.values()} == {
        1
    }
    values = {site: value for site, (value,) in found.items()}
    assert torch.equal(values[Site(None, 0, "features")], expected)
    for index, (mean, each) in enumerate(zip(net.stages(x), net.stage_steps(x), strict=True)):
        assert torch.equal(each, values[Site(index, 0, f"stages.{index}")]) and len(each) == len(expected)
        torch.testing.assert_close(each.mean(0), mean)
    activations = [site.name for site in values if site.stage is None and site.name != "features"]
    assert len(activations) == 5 and all(net.get_submodule(name) is not None for name in activations)
    if isinstance(net, Graphed):
        assert activations == [f"graph.{name}" for name in net.neurons()]
        assert all(values[Site(None, 0, name)].unique().tolist() in ([0.0], [1.0], [0.0, 1.0]) for name in activations)


@torch.no_grad()
def test_what_a_tap_puts_in_place_flows_on(net, x):
    """Features follow from the last stage alone: with that of other images they are theirs, from the same step on."""
    last = Site(2, 0, "stages.2")
    (steps, found), expected = collect(net, -x), net.forward_steps(x)
    (other,), (own,) = found[last], collect(net, x)[1][last]
    assert not torch.equal(steps, expected) and torch.equal(net.forward_steps(x, put({last: other})), steps)
    if len(expected) > 1:
        late = net.forward_steps(x, put({last: torch.cat([own[:2], other[2:]])}))
        assert torch.equal(late[:2], expected[:2]) and torch.equal(late[2:], steps[2:])
    assert not net.forward_steps(x, put({last: torch.zeros_like(own)})).any()  # a tail of averages
    silent = {
        Site(None, 0, site.name): torch.zeros_like(value) for site, (value,) in found.items() if site.stage is None
    }
    assert not net.forward_steps(x, put(silent)).any()


@torch.no_grad()
def test_a_tap_that_fails_leaves_nothing_behind(net, x):
    expected = net.forward_steps(x)

    def failing(site, value):
        if site.stage == 1:
            raise RuntimeError("no")
        return value

    with pytest.raises(RuntimeError, match="no"):
        net.forward_steps(x, failing)
    assert torch.equal(net.forward_steps(x), expected)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@torch.no_grad()
def test_a_still_image_is_so_many_equal_frames(net, images):
    frames = images.unsqueeze(1).expand(-1, net.steps, -1, -1, -1)
    assert torch.equal(net.forward_steps(frames), net.forward_steps(images))
    assert len(net.forward_steps(frames[:, :1])) == 1


@torch.no_grad()
def test_spikes_are_followed_under_a_tap_and_come_out_the_same(exact, images, monkeypatch):
    stages = [nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)), nn.Conv2d(8, 8, 3, padding=1)]
    net = converted(exact(StaticBackbone((2, 8, 8), stages, nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)))))
    seen = []
    for limit in (1.0, 0.0, None):
        monkeypatch.setattr(crossover, "limits", lambda limit=limit: defaultdict(lambda: limit or 0.0))
        if limit is None:
            monkeypatch.setattr(events, "library", lambda: None)
        steps, found = collect(net, images)
        changed = net.forward_steps(images, lambda site, value: value * 0.5 if site.stage is not None else value)
        seen.append([steps, changed, *(value for (value,) in found.values())])
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("options", [{}, {"truncate": 2}, {"checkpoint_steps": 3}, {"learn_scale": True}])
def test_training_under_a_tap_is_the_same_training(residual_net, images, options):
    grads, statistics = [], []
    for tap in (None, lambda _, value: value):
        torch.manual_seed(0)
        stem = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
        net = StaticBackbone((2, 8, 8), [stem, *residual_net.body], residual_net.tail)
        net = spiking(net.train(), SpikingOptions(steps=STEPS, **options)).train()
        net.forward_steps(images, tap).square().sum().backward()
        grads.append([p.grad for p in net.parameters()])
        statistics.append([b.clone() for b in net.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*statistics, strict=True))
    if options.keys() & {"truncate", "checkpoint_steps"}:  # what precedes the neurons runs once, and for each part
        torch.testing.assert_close(grads[1], grads[0])
    else:
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_gradients_flow_through_a_tap_on_spikes(residual_net, images):
    net, factor = trained(residual_net), torch.ones((), requires_grad=True)
    steps = net.forward_steps(images, lambda site, value: value * factor if site.name == "graph.body.0.1" else value)
    steps.sum().backward()
    assert factor.grad is not None and factor.grad.any() and net.graph.get_submodule("body.0.0").weight.grad.any()


def test_a_quantised_row_of_stages_is_one(residual_net, images):
    net = MADE["quantised"](residual_net)
    assert isinstance(net, Staged)
    value = images
    for index in range(3):
        value = net.apply_stage(index, value)
    assert torch.equal(net.apply_tail(value), net(images))


@pytest.mark.parametrize("adapter", [trained, MADE["quantised"]])
def test_what_runs_over_time_is_refused_by_what_it_is_not(residual_net, adapter):
    with pytest.raises(UserError, match="must be Traceable; got AdaptedNetwork, which is Staged, StageSteps"):
        adapter(trained(residual_net))
