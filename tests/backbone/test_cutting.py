"""Networks cut at their stages: every part by itself, one after the other, is the whole network, to the last bit."""

import pytest
import torch
from torch import nn

from engram.backbone.contract import Staged
from engram.backbone.errors import UserError
from engram.backbone.nets.folding import traced_with_stages
from engram.backbone.nets.staging import in_stages
from engram.backbone.nets.traced import TracedBackbone


def by_hand(net, x):
    for index in range(len(net.stage_channels)):
        x = net.apply_stage(index, x)
    return net.apply_tail(x)


def test_strangers_are_run_stage_by_stage(stranger):
    """Also those that ask for the number of images where the pictures come from."""
    assert not isinstance(stranger, Staged)
    net, x = in_stages(stranger, "feedback.gated"), torch.randn(4, 3, 8, 8)
    assert isinstance(net, TracedBackbone) and isinstance(net, Staged) and net.training
    for mode in (True, False):
        net.train(mode)
        stranger.train(mode)
        expected, mine = stranger(x), by_hand(net, x)
        assert torch.equal(mine, expected)
    assert torch.equal(net.graph.norm.running_var, stranger.norm.running_var)
    mine.sum().backward()
    expected.sum().backward()
    for name, parameter in stranger.named_parameters():
        assert torch.equal(net.graph.get_parameter(name).grad, parameter.grad), name


@pytest.mark.parametrize("name", ["mlp", "resnet-tiny"])
def test_a_graph_of_ours_is_cut_where_its_stages_are(backbone, name):
    net = backbone(name, (1, 16, 16), width=0.25).eval()
    x = torch.randn(3, 1, 16, 16)
    graph, stages = traced_with_stages(net, composed=True)
    cut = TracedBackbone(graph, net, stages)
    value = x
    for index, stage in enumerate(net.stages(x)):
        value = cut.apply_stage(index, value)
        assert torch.equal(value, stage)
    assert torch.equal(cut.apply_tail(value), net(x))


def test_a_network_in_stages_is_copied(backbone):
    net = backbone("vgg-tiny", (1, 16, 16), width=0.25)
    mine = in_stages(net, "feedback.gated")
    assert type(mine) is type(net) and mine is not net


class Skipping(nn.Module):
    """What the first layer gives goes around the first stage."""

    in_shape, feature_dim, stage_channels, steps, readout = (1, 4, 4), 2, (2, 2), 1, "mean"

    def __init__(self):
        super().__init__()
        self.early, self.first, self.second = (nn.Conv2d(c, 2, 1) for c in (1, 2, 2))
        self.shift = nn.Parameter(torch.ones(1))

    def stages(self, x):
        shift = self.shift * 2
        early = self.early(x)
        first = self.first(early) + shift
        return [first, self.second(first) + early + shift]

    def forward_steps(self, x, tap=None):
        return self(x)[None]

    def forward(self, x):
        return self.stages(x)[-1].mean((2, 3))


def test_a_value_that_goes_around_a_stage_is_named():
    with pytest.raises(UserError, match=r"what stage 2 of this network is computed from .* got early as well"):
        in_stages(Skipping(), "feedback.gated")


class Shifted(Skipping):
    """What no image changes may be used in any stage."""

    def stages(self, x):
        shift = self.shift * 2
        first = self.first(self.early(x)) + shift
        return [first, self.second(first) + shift]


def test_what_depends_on_no_image_is_made_in_every_stage():
    net, x = Shifted(), torch.randn(2, 1, 4, 4)
    assert torch.equal(by_hand(in_stages(net, "feedback.gated"), x), net(x))


class Branching(Shifted):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


class Stageless(Skipping):
    def stages(self, x):
        return []

    def forward(self, x):
        return self.early(x).mean((2, 3))


class Stepping(Shifted):
    steps = 3


@pytest.mark.parametrize(("kind", "said"), [(Branching, "branches"), (Stageless, "none"), (Stepping, "Staged:")])
def test_what_cannot_be_in_stages_is_refused(kind, said):
    with pytest.raises(UserError, match=f"a network for feedback.gated must be Staged.*{said}"):
        in_stages(kind(), "feedback.gated")
