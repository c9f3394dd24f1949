"""The recurrent network: what it begins as, what a connection does, and what is refused."""

from __future__ import annotations

import pytest
import torch

from engram.backbone.contract import Site
from engram.backbone.errors import TrialError, UserError
from engram.feedback.connections import parse

CONNECTIONS = [None, "layer3>layer1,layer2>layer2", "logits>layer1,features>layer2"]


@pytest.mark.parametrize("connections", CONNECTIONS)
@pytest.mark.parametrize("unrolling", ["engineering", "biological"])
@pytest.mark.parametrize("adapter", ["feedback.gated", "feedback.additive"])
@torch.no_grad()
def test_a_fresh_one_is_the_wrapped_network_at_every_step(made, images, adapter, unrolling, connections):
    plain = made(None)
    net = made(adapter, unrolling=unrolling, connections=connections).backbone
    features = net.forward_steps(images)
    assert len(features) == net.steps == 4 + net.delay
    assert torch.equal(features[net.delay :], plain.backbone(images).expand(4, -1, -1))
    assert not features[: net.delay].any()


@torch.no_grad()
def test_a_gain_is_of_the_step_before(made, images):
    net = made("feedback.gated", connections="layer3>layer1", norm="shared").backbone
    torch.nn.init.normal_(net.paths[0].conv.weight, generator=torch.Generator().manual_seed(2))
    inner, found = net.inner, net.forward_steps(images)
    value, top = inner.apply_stage(0, images), None
    for features in found:
        first = value
        if top is not None:
            gain = 1 + net.paths[0].conv(net.paths[0].norm(top)).tanh()
            first = value * gain.repeat_interleave(4, -1).repeat_interleave(4, -2)
        top = inner.apply_stage(2, inner.apply_stage(1, first))
        assert torch.allclose(inner.apply_tail(top), features, atol=1e-6)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


@torch.no_grad()
def test_a_tap_can_switch_a_connection_off_and_sees_every_stage_at_every_step(made, images):
    net = made("feedback.additive", connections="layer3>layer1").backbone
    torch.nn.init.normal_(net.paths[0].conv.weight, generator=torch.Generator().manual_seed(2))
    seen = []

    def off(site: Site, value: torch.Tensor) -> torch.Tensor:
        seen.append(site)
        return torch.full_like(value, net.neutral) if site.name == "layer3>layer1" else value

    cut, plain = net.forward_steps(images, off), net.forward_steps(images)
    assert torch.equal(cut, plain[:1].expand_as(cut)) and not torch.equal(cut, plain)
    assert [site.step for site in seen if site.name == "layer3>layer1"] == [1, 2, 3]
    assert [site.step for site in seen if site.stage == 2] == [0, 1, 2, 3]


@torch.no_grad()
def test_stages_before_the_lowest_target_run_once(made, images):
    net = made("feedback.gated", connections="layer3>layer2").backbone
    runs = []
    net.inner.body[0].register_forward_hook(lambda *_: runs.append(0))
    net.inner.body[1].register_forward_hook(lambda *_: runs.append(1))
    net.inner.body[2].register_forward_hook(lambda *_: runs.append(2))
    net(images)
    assert runs == [0, 1, 2, 2, 2, 2]


def test_a_head_is_introduced_and_not_owned(made, images):
    model = made("feedback.gated", connections="logits>layer1")
    assert [name for name, _ in model.named_parameters() if "head" in name] == ["head.weight", "head.bias"]
    assert model.backbone.paths[0].conv.in_channels == 3
    model.head = torch.nn.Linear(model.backbone.feature_dim, 7)
    assert model.backbone.paths[0].conv.in_channels == 7 and model(images).shape == (5, 7)


def test_a_learned_read_out_weighs_steps(made, images):
    net = made("feedback.additive", readout="learned").backbone
    with torch.no_grad():
        net.step_logits.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0]))
        torch.nn.init.normal_(net.paths[0].conv.weight, generator=torch.Generator().manual_seed(2))
    weights = torch.tensor([0.0, 1.0, 2.0, 3.0]).softmax(0)
    expected = (net.forward_steps(images) * weights[:, None, None]).sum(0)
    assert torch.allclose(net(images), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layer1>layer3", "layer1>layer3 in connections must be one that leads back"),
        ("layer9>layer1", "layer9 in connections must be a stage of the network, layer1 to layer3"),
        ("layer3>features", "must be SOURCE>TARGET"),
        ("layer3>layer1,layer3>layer1", "must be named once"),
        (" ", "connections must be at least one connection"),
    ],
)
def test_connections_that_cannot_be_are_refused(made, text, said):
    with pytest.raises(UserError, match=said):
        made("feedback.gated", connections=text)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(UserError) as refused:
        parse("layer1>layer2,layer0>layer1,what")
    assert len(str(refused.value).splitlines()) == 3


@torch.no_grad()
@pytest.mark.parametrize("adapter", ["feedback.gated", "feedback.additive", "feedback.equilibrium"])
def test_what_is_no_number_is_reported_with_its_step(made, images, adapter):
    net = made(adapter, connections="layer3>layer1").backbone
    net.paths[0].conv.bias.fill_(float("nan"))
    with pytest.raises(TrialError, match=r"must be at most 1e\+06 times .*; got nan at step 2 of .* Use fewer steps"):
        net(images)


@torch.no_grad()
def test_what_explodes_is_reported_with_its_step(made, images):
    """Each step multiplies the first stage by 1 + 30 more, as an additive connection to itself can."""
    net = made("feedback.additive", connections="layer1>layer1", steps=12).backbone
    net.paths[0].norm, net.paths[0].conv = torch.nn.Identity(), torch.nn.Conv2d(16, 16, 1, bias=False)
    net.paths[0].conv.weight.copy_(30 * torch.eye(16)[..., None, None])
    sizes = (net.inner.apply_stage(0, images).abs().amax() * 30.0 ** torch.arange(12)).tolist()
    assert sizes[4] < 1e6 and sizes[-1] < 1e38  # no overflow is waited for
    with pytest.raises(TrialError, match=r"got [\d.]+e\+0[67] at step [567] of 12, after"):
        net(images)
