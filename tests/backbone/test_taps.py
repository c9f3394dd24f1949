"""Taps: they see what forward hooks see, change nothing by themselves, and what they put in place flows on."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from engram.backbone.contract import ABILITIES, Backbone, Site, Staged, StageSteps
from engram.backbone.errors import UserError
from engram.backbone.nets.needs import need
from engram.backbone.nets.tapped import attach, attached, detach, sites, tapped_steps
from engram.backbone.nets.taps import at_step, stage_values
from engram.backbone.registry import Registry

NAMES = [name for plugin, name, _ in Registry.discover().choices("backbones") if plugin == "backbone"]
SMALL = {"width": 0.25}
SHAPE = (1, 16, 16)


def unchanged(_site, value):
    return value


def copied(_site, value):
    return value.clone()


def zeroed(name):
    return lambda site, value: torch.zeros_like(value) if site.name == name else value


def collect(net, x):
    found = {}

    def tap(site, value):
        found[site] = value.clone()
        return value

    return tapped_steps(net, x, tap), found


@pytest.fixture(params=NAMES)
def net(backbone, request):
    torch.manual_seed(0)
    return backbone(request.param, SHAPE, **SMALL).eval()


def test_a_network_is_what_its_entry_offers(net, request):
    entry = Registry.discover().entry("backbones", request.node.callspec.params["net"])
    assert set(entry.offers or ()) == {name for name, protocol in ABILITIES.items() if isinstance(net, protocol)}


def hooks_of(net):
    return [hook for module in net.modules() for hook in (module._forward_hooks or module._forward_pre_hooks)]


@pytest.mark.parametrize("frames", [None, 3])
def test_a_tap_sees_what_hooks_see(net, frames):
    x = torch.randn(2, *SHAPE) if frames is None else torch.randn(2, frames, *SHAPE)
    steps, found = collect(net, x)
    assert torch.equal(steps, net.forward_steps(x)) and set(found) == set(sites(net, frames))
    assert {site: (len(value), 1, *value.shape[2:]) for site, value in found.items()} == sites(net, frames)
    activations = [site for site in found if site.stage is None and site.name != "features"]
    kinds = [name for name, module in net.named_modules() if isinstance(module, nn.ReLU)]
    assert [site.name for site in activations] == kinds and len(found) == len(kinds) + len(net.stage_channels) + 1
    for site in activations:
        seen = []
        handle = net.get_submodule(site.name).register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
        net.forward_steps(x)
        handle.remove()
        expected = seen[0][None] if frames is None else seen[0].unflatten(0, (2, 3)).transpose(0, 1)
        assert torch.equal(found[site], expected)
    for index, (mean, each) in enumerate(zip(net.stages(x), net.stage_steps(x), strict=True)):
        assert torch.equal(found[Site(index, 0, f"stages.{index}")], each)
        torch.testing.assert_close(each.mean(0), mean)
    assert torch.equal(found[Site(None, 0, "features")], steps)


@pytest.mark.parametrize("frames", [None, 3])
def test_what_a_tap_returns_flows_on(net, frames):
    x = torch.randn(2, *SHAPE) if frames is None else torch.randn(2, frames, *SHAPE)
    expected, last = net.forward_steps(x), len(net.stage_channels) - 1
    assert torch.equal(net.forward_steps(x, unchanged), expected)
    assert torch.equal(net.forward_steps(x, copied), expected)
    shape = net.stages(x)[-1].shape
    cut = net.forward_steps(x, zeroed(f"stages.{last}"))
    torch.testing.assert_close(cut, net.apply_tail(torch.zeros(shape)).expand_as(cut))
    assert not net.forward_steps(x, zeroed("features")).any()
    seen = collect(net, x)[1]

    def second_step_only(site, value):
        return torch.cat([value[:1], torch.zeros_like(value[1:])]) if site.name == "stages.0" else value

    mixed = net.forward_steps(x, second_step_only)
    assert torch.equal(mixed[0], expected[0]) and seen[Site(0, 0, "stages.0")].any()
    assert frames is None or not torch.equal(mixed[1], expected[1])


def test_a_tap_that_fails_leaves_nothing_behind(net):
    x = torch.randn(2, *SHAPE)
    expected, last = net.forward_steps(x), list(sites(net))[-2].name

    def failing(site, value):
        if site.name == last:
            raise RuntimeError(site.name)
        return value

    with pytest.raises(RuntimeError, match=last):
        net.forward_steps(x, failing)
    with pytest.raises(UserError, match=r"what a tap returns at stages.0 must be of the shape .*; got \[1\]"):
        net.forward_steps(x, lambda site, value: value.new_zeros(1) if site.stage == 0 else value)
    assert not hooks_of(net) and torch.equal(net.forward_steps(x), expected)


def test_gradients_flow_through_a_tap_in_training(backbone):
    net, x = backbone("vgg-tiny", SHAPE, **SMALL).train(), torch.randn(4, *SHAPE)
    factor = torch.ones((), requires_grad=True)
    net.forward_steps(x, lambda site, value: value * factor if site.stage == 1 else value).sum().backward()
    through = [p.grad.clone() for p in net.parameters()]
    assert factor.grad is not None and factor.grad.abs() > 0
    net.zero_grad()
    net.forward_steps(x).sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(through, net.parameters(), strict=True))
    net.zero_grad()
    net.forward_steps(x, lambda site, value: value.detach() if site.stage == 1 else value).sum().backward()
    assert [p.grad is None for p in net.body[:2].parameters()] == [True] * len([*net.body[:2].parameters()])
    assert all(p.grad is not None for p in net.body[2:].parameters())


def test_nothing_is_computed_twice_under_a_tap(backbone):
    net, x, seen = backbone("vgg-tiny", SHAPE, **SMALL).train(), torch.randn(4, *SHAPE), []
    net.recompute = True
    net.forward_steps(x, lambda site, value: seen.append(site) or value).sum().backward()
    assert len(seen) == len(set(seen))


def test_a_row_of_stages_can_be_run_by_hand(net):
    assert isinstance(net, Staged)
    x = value = torch.randn(2, *SHAPE)
    for index in range(len(net.stage_channels)):
        value = net.apply_stage(index, value)
    assert torch.equal(net.apply_tail(value), net(x))


class Gated(nn.Module):
    """An adapter with steps of its own: the last stage scales the first one in the next step."""

    readout = "last"

    def __init__(self, net, steps):
        super().__init__()
        need(net, Staged, "gated")
        self.net, self.steps, self.back = net, steps, nn.Conv2d(net.stage_channels[-1], net.stage_channels[0], 1)
        self.in_shape, self.feature_dim, self.stage_channels = net.in_shape, net.feature_dim, net.stage_channels

    def forward_steps(self, x, tap=None):
        images = x.unbind(1) if x.ndim == 5 else [x] * self.steps
        features, state = [], None
        for step, image in enumerate(images):
            with at_step(self, tap, step) as show:
                value = image
                for index in range(len(self.stage_channels)):
                    value = self.net.apply_stage(index, value)
                    if index == 0 and state is not None:
                        size = value.shape[2:]
                        value = value * (1 + nn.functional.interpolate(self.back(state).tanh(), size))
                    value = show(index, value)
                state = value
                features.append(show(None, self.net.apply_tail(value)))
        return torch.stack(features)

    def stage_steps(self, x):
        return stage_values(self, x)

    def stages(self, x):
        return [stage.mean(0) for stage in self.stage_steps(x)]

    def forward(self, x):
        return self.forward_steps(x)[-1]


@pytest.fixture
def gated(backbone):
    torch.manual_seed(0)
    return Gated(backbone("vgg-tiny", SHAPE, **SMALL), 4).eval()


@torch.no_grad()
def test_a_network_with_steps_of_its_own_is_tapped_step_by_step(gated):
    x = torch.randn(2, *SHAPE)
    steps, found = collect(gated, x)
    assert isinstance(gated, Backbone) and isinstance(gated, StageSteps)
    assert torch.equal(steps, gated.forward_steps(x)) and not torch.equal(steps[0], steps[1])
    names = ["net.body.0.2", "stages.0", "net.body.1.2", "stages.1", "net.body.2.2", "stages.2", "features"]
    assert [(site.step, site.name) for site in found] == [(step, name) for step in range(4) for name in names]
    last = torch.stack([found[Site(2, step, "stages.2")][0] for step in range(4)])
    assert torch.equal(gated.stage_steps(x)[2], last)
    cut = gated.forward_steps(x, lambda site, value: value * 0 if site == Site(2, 1, "stages.2") else value)
    assert torch.equal(cut[0], steps[0]) and not cut[1].any()
    assert not torch.equal(cut[2], steps[2])  # the step after it is told of it
    assert not hooks_of(gated)


@torch.no_grad()
@pytest.mark.parametrize("name", [*NAMES, "gated"])
def test_a_still_image_is_as_many_equal_frames_as_a_network_has_steps(backbone, gated, name):
    net = gated if name == "gated" else backbone(name, SHAPE, **SMALL).eval()
    x = torch.randn(2, *SHAPE)
    frames = x.unsqueeze(1).expand(-1, net.steps, -1, -1, -1)
    torch.testing.assert_close(net.forward_steps(frames), net.forward_steps(x))
    torch.testing.assert_close(net(frames), net(x))
    more = torch.cat([frames, torch.randn(2, 3, *SHAPE)], 1)
    longer = net.forward_steps(more)
    assert len(longer) == net.steps + 3  # one for each frame, whatever a still image takes
    torch.testing.assert_close(longer[: net.steps], net.forward_steps(x))  # the state is carried, never looked ahead
    alone = net.forward_steps(more[:, -1:])[0]
    assert torch.allclose(longer[-1], alone, atol=1e-5) == (name != "gated")


@torch.no_grad()
def test_a_tap_may_stay_until_it_is_taken_off(gated, backbone):
    x = torch.randn(2, *SHAPE)
    for net in (gated, backbone("lenet5", SHAPE).eval(), Twice(), Twice(branching=True)):
        names, plain, steps = set(net.state_dict()), net(x), net.forward_steps(x)
        tap, other = zeroed("features"), lambda site, value: value + 1 if site.name == "features" else value
        attach(net, tap)
        attach(net, other)
        assert attached(net) == [tap, other] and set(net.state_dict()) == names
        assert bool((net(x) == 1).all()) and bool((tapped_steps(net, x, other) == 2).all())
        twin = deepcopy(net)
        detach(net, tap)
        torch.testing.assert_close(net(x), plain + 1)
        detach(net, other)
        assert torch.equal(net(x), plain) and torch.equal(net.forward_steps(x), steps) and not attached(net)
        assert bool((twin(x) == 1).all())


class Twice(nn.Module):
    """A stranger's network that knows nothing of taps, with one activation module for two layers."""

    in_shape, feature_dim, stage_channels, steps, readout = SHAPE, 3, (4,), 1, "mean"

    def __init__(self, branching=False):
        super().__init__()
        self.conv, self.act, self.out, self.branching = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 3), branching

    def stages(self, x):
        return [self.act(self.conv(x))]

    def features(self, x):
        x = self.stages(x)[0].mean((2, 3))
        return self.act(self.out(x)) if not self.branching or x.sum() >= 0 else x[:, :3]

    def forward_steps(self, x):
        return self.features(x).unsqueeze(0)

    def forward(self, x):
        return self.features(x)


@pytest.mark.parametrize("branching", [False, True])
def test_strangers_networks_are_tapped_from_outside(branching):
    net, x = Twice(branching).train(), torch.randn(2, *SHAPE)
    steps, found = collect(net, x)
    names = ["act", *([] if branching else ["stages.0"]), "act#2", "features"]
    assert [site.name for site in found] == [site.name for site in sites(net)] == names and net.training
    assert torch.equal(steps, net.forward_steps(x)) and torch.equal(found[Site(None, 0, "act")][0], net.stages(x)[0])
    cut = tapped_steps(net, x, zeroed("act"))
    torch.testing.assert_close(cut, net.out.bias.relu().expand_as(cut))
    frames = torch.randn(2, 3, *SHAPE)
    stacked = torch.stack([net(frame) for frame in frames.unbind(1)])
    torch.testing.assert_close(tapped_steps(net, frames, unchanged), stacked)
    tapped_steps(net, x, unchanged).sum().backward()
    assert net.conv.weight.grad.any() and not hooks_of(net)


def test_what_cannot_be_tapped_or_run_by_stages_is_refused_by_name():
    net = Twice()
    assert isinstance(net, Backbone)
    with pytest.raises(
        UserError, match=r"a network for feedback must be Staged; got Twice, which is Traceable. Staged"
    ):
        need(net, Staged, "feedback")
    net.steps = 4
    with pytest.raises(UserError, match=r"with steps of its own under a tap must be .*; got Twice.forward_steps"):
        tapped_steps(net, torch.randn(2, *SHAPE), unchanged)
