"""Recurrence of every kind against a loop written out, finite differences, and what no batch may change."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.nets.making import build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry

KINDS = ("feedback.gated", "feedback.additive", "feedback.blt", "feedback.lateral")
UNROLLINGS = ("engineering", "biological")
MANY = "layer3>layer1,layer2>layer2,logits>layer2,features>layer1,layer3>layer3"
SHAPE, CLASSES = (2, 8, 8), 3


def model(kind, connections=None, backbone=None, shape=SHAPE, **options):
    """A classifier of double precision whose paths and norms are none of what they begin as."""
    torch.manual_seed(0)
    adapter = in_full(Registry.discover(), "adapters", kind, {"connections": connections, **options})
    chosen = {"width": 0.25, "activation": "silu", **(backbone or {})}
    made = build("vgg-tiny", chosen, shape, CLASSES, torch.zeros(2), torch.ones(2), adapters=[adapter])
    for name, value in made.backbone.paths.named_parameters():
        nn.init.normal_(value, 0.5 if name.endswith("4.weight") else 0.0, 0.3)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
    return made.double().eval()


def written_out(made, x):
    """Gated or additive feedback, step by step, with every map enlarged."""
    net, head = made.backbone, made.head
    biological, count = net.options.unrolling == "biological", len(net.stage_channels)
    gated, inner = net.neutral == 1, net.inner
    before, found = {}, []
    for step in range(net.steps):
        now = {}
        for stage in range(min(count, step + 1) if biological else count):
            under = x if stage == 0 else (before if biological else now)[f"layer{stage}"]
            value = inner.apply_stage(stage, under)
            for connection, path in zip(net.connections, net.paths, strict=True):
                source = before.get(connection.source)
                if connection.target == stage and source is not None:
                    p = F.conv2d(F.group_norm(source, 1), path.conv.weight, path.conv.bias)
                    p = F.interpolate(p, value.shape[-2:], mode="nearest")
                    value = value * (1 + p.tanh()) if gated else value + p
            now[f"layer{stage + 1}"] = value
        if f"layer{count}" in now:
            features = inner.apply_tail(now[f"layer{count}"])
            now |= {"features": features[..., None, None], "logits": head(features)[..., None, None]}
            found.append(features)
        else:
            found.append(torch.zeros(len(x), net.feature_dim, dtype=x.dtype))
        before = now
    return torch.stack(found)


@pytest.fixture
def x():
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("unrolling", UNROLLINGS)
@pytest.mark.parametrize("kind", KINDS[:2])
@torch.no_grad()
def test_it_is_the_loop_written_out(x, kind, unrolling):
    made = model(kind, MANY, unrolling=unrolling, norm="shared")
    found = made.backbone.forward_steps(x)
    torch.testing.assert_close(found, written_out(made, x))
    assert (found[-1] - found[made.backbone.delay]).abs().amax() > 0.01


@pytest.mark.parametrize("unrolling", UNROLLINGS)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_image_is_seen_alike_whatever_it_comes_with(x, kind, unrolling):
    made = model(kind, unrolling=unrolling)
    net = made.backbone
    found = net.forward_steps(x)
    assert torch.equal(net.forward_steps(x), found)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(net.forward_steps(x[order]), found[:, order])
    torch.testing.assert_close(torch.cat([net.forward_steps(one[None]) for one in x], 1), found)
    assert torch.equal(net.forward_steps(x), found)


@pytest.mark.parametrize("unrolling", UNROLLINGS)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_state_is_all_that_a_run_is(x, kind, unrolling):
    """Two runs in turns do not know of each other, and a step from an old state is the step it was."""
    net = model(kind, unrolling=unrolling).backbone
    images = (x[:2], x[2:])
    wanted = [net.forward_steps(each) for each in images]
    states, kept = [net.begin(each) for each in images], []
    for step in range(net.steps):
        for run in (0, 1):
            kept.append((run, step, states[run]))
            features, states[run] = net.advance(images[run], states[run], step)
            assert torch.equal(features, wanted[run][step])
    for run, step, state in reversed(kept):
        assert torch.equal(net.advance(images[run], state, step)[0], wanted[run][step])


@pytest.mark.parametrize(
    ("kind", "unrolling"),
    [
        *((kind, "engineering") for kind in KINDS),
        (KINDS[0], "biological"),
        *(pytest.param(kind, "biological", marks=pytest.mark.slow) for kind in KINDS[1:]),
    ],
)
def test_gradients_are_finite_differences(kind, unrolling):
    """Of all features with respect to the image and to every parameter, through several steps and connections."""
    connections = {"feedback.lateral": None, "feedback.blt": None}.get(kind, MANY)
    made = model(kind, connections, {"width": 0.1}, unrolling=unrolling, steps=3 + (unrolling == "biological"))
    net = made.backbone
    x = torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    named = {name: value for name, value in net.named_parameters() if not name.startswith("head")}
    found = torch.autograd.grad(net.forward_steps(x).sum(), list(named.values()), allow_unused=True)
    unused = {name for name, each in zip(named, found, strict=True) if each is None}
    # of the last steps of early stages, which no features have seen when the network stops
    assert all(".norms." in name for name in unused) and bool(unused) == (unrolling == "biological")
    values = [value for name, value in named.items() if name not in unused]
    assert torch.autograd.gradcheck(lambda image, *_: net.forward_steps(image), (x, *values), fast_mode=True)
