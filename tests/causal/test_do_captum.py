"""A network that calls a layer at several steps: ours against a loop by hand, and what captum makes of it."""

import pytest
import torch
from torch import nn

from engram.backbone.nets.taps import at_step
from engram.causal import do

STEPS, HIDDEN = 3, 4


class Loop(nn.Module):
    """h(t) = relu(V x + W h(t - 1)), h(-1) = 0; its features at every step are h(t), its answer a sum over them."""

    readout, stage_channels, in_shape, feature_dim, steps = "last", (), (1, 2, 2), HIDDEN, STEPS

    def __init__(self):
        super().__init__()
        self.inward, self.back, self.act = nn.Linear(4, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()

    def forward_steps(self, x, tap=None):
        h, found = x.new_zeros(len(x), HIDDEN), []
        for step in range(STEPS):
            with at_step(self, tap, step) as show:
                h = self.act(self.inward(x.flatten(1)) + self.back(h))
                found.append(show(None, h))
        return torch.stack(found)

    def stages(self, x):
        return []

    def forward(self, x):
        return self.forward_steps(x)[-1]


def by_hand(net, x, at, change):
    """The same loop, unrolled; ``change(step, h)`` is done to h at the steps ``at``."""
    h = torch.zeros(len(x), HIDDEN)
    for step in range(STEPS):
        h = (x.flatten(1) @ net.inward.weight.T + net.inward.bias + h @ net.back.weight.T + net.back.bias).clamp(min=0)
        h = change(step, h) if step in at else h
    return h


@pytest.fixture
def net():
    torch.manual_seed(3)
    net = Loop().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
    return net


@pytest.fixture
def x():
    return torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1))


def without(channel):
    def change(_step, h):
        h = h.clone()
        h[:, channel] = 0
        return h

    return change


@torch.no_grad()
@pytest.mark.parametrize("at", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_a_channel_is_taken_away_at_the_steps_that_are_meant(net, x, at):
    for channel in range(HIDDEN):
        for name in ("act", "features"):
            with do(net, name=name, step=at, channel=channel).zero():
                found = net(x)
            if name == "act":
                torch.testing.assert_close(found, by_hand(net, x, at, without(channel)))
        if 2 not in at:  # features are read and never come back here, activations do
            assert torch.equal(found, net(x))
    everywhere = [by_hand(net, x, (step,), without(0)) for step in range(STEPS)]
    assert len(torch.stack(everywhere).sum((1, 2)).unique()) == STEPS  # every step tells


@torch.no_grad()
def test_captum_puts_one_saved_tensor_in_the_place_of_every_call(net, x):
    """Its layer ablation keeps the output of one call and gives it back, ablated, at all of them: no step of such a
    network has that value, so that its differences are those of no intervention.
    """
    attr = pytest.importorskip("captum.attr")
    ablation = attr.LayerFeatureAblation(net, net.act)
    theirs = ablation.attribute(x, target=1)  # [5, HIDDEN], answer minus answer without the channel
    calls = []

    def tap(site, value):
        if site.name == "act":
            calls.append(value[0].clone())
        return value

    net.forward_steps(x, tap)
    truth, saved = [], []
    for channel in range(HIDDEN):
        change = without(channel)
        with do(net, name="act", channel=channel).zero():
            ours = net(x)
        truth.append((net(x) - ours)[:, 1])
        torch.testing.assert_close(ours, by_hand(net, x, range(STEPS), change))
        # what captum does: every call gives the value of one of them, with the channel taken away
        saved.append([(call - change(0, call))[:, 1] for call in calls])
    truth, saved = torch.stack(truth, 1), [torch.stack(each, 1) for each in zip(*saved, strict=True)]
    assert any(torch.allclose(theirs, each) for each in saved)
    # of a tensor that nothing computes again, only the channel that is asked for itself matters
    assert torch.equal(theirs[:, [0, 2, 3]], torch.zeros(5, 3)) and (truth[:, [0, 2, 3]] > 0.01).all()


@torch.no_grad()
def test_in_one_step_captum_and_we_find_the_same(x):
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)).eval()
    theirs = attr.LayerFeatureAblation(net, net[2]).attribute(x, target=1)
    ours = []
    for channel in range(HIDDEN):
        with do(net, name="2", channel=channel).zero():
            ours.append(net(x)[:, 1])
    torch.testing.assert_close(net(x)[:, 1:2] - torch.stack(ours, 1), theirs)
