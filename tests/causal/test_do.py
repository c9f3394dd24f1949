"""Interventions on networks of every kind: what they change, when, and that nothing stays behind."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import engram
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.nets.tapped import attach, attached, detach, sites, tapped_steps
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.causal import collected, do
from engram.causal.intervening.changes import Changes, Intervention
from engram.causal.intervening.kinds import Constant, Mean, exchanged
from engram.causal.intervening.place import Place

SHAPE, CLASSES = (2, 8, 8), 3
KINDS = {
    "plain": ("vgg-tiny", []),
    "quantised": ("vgg-tiny", [("snn.qcfs", {"threshold": 2.0})]),
    "spiking": ("vgg-tiny", [("snn.spiking", {"steps": 4, "neuron": "if"})]),
    "spiking in pieces": ("vgg-tiny", [("snn.spiking", {"steps": 4, "truncate": 3})]),
    "recurrent": ("vgg-tiny", [("feedback.gated", {"steps": 3})]),
    "delayed": ("vgg-tiny", [("feedback.lateral", {"steps": 3, "unrolling": "biological"})]),
    "residual": ("resnet-tiny", []),
}


def made(kind):
    """A classifier whose paths, norms and biases are all at work."""
    backbone, adapters = KINDS[kind]
    registry = Registry.discover()
    torch.manual_seed(0)
    named = [in_full(registry, "adapters", name, options) for name, options in adapters]
    model = build(backbone, {"width": 0.25}, SHAPE, CLASSES, torch.zeros(2), torch.ones(2), adapters=named).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.4 + (0.1 if "spiking" in kind else 0))
    return model


@pytest.fixture(scope="module")
def models(images):
    found = {kind: made(kind) for kind in KINDS}
    with torch.no_grad():
        assert all(len(model(images).unique(dim=0)) == len(images) for model in found.values())  # all say something
    return found


@pytest.fixture(params=["plain", "spiking in pieces", "recurrent"])
def model(request, models):
    return models[request.param]


@pytest.fixture(scope="module")
def images():
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def others():
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(2))


def under(model, images, change):
    """The features of every step while ``change(step, value [B, C, ...])`` is done at the sites called so, by hand."""

    def tap(site, value):
        if site.name not in change:
            return value
        return torch.stack([change[site.name](site.step + k, part.clone()) for k, part in enumerate(value)])

    return tapped_steps(model.backbone, model.normalise(images), tap)


def untouched(net):
    hooks = any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    return not {"forward", "forward_steps"} & set(net.__dict__) and not attached(net) and not hooks


def cells(value, number):
    value[:, [1, 3], 0:1, 0:2] = number
    return value


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_box_of_some_channels_is_set_and_nothing_else(models, images, kind):
    model = models[kind]
    before = model(images)
    expected = under(model, images, {"stages.1": lambda _, value: cells(value, 0.5)})
    with do(model, stage=1, channel=(1, 3), region=(0, 0, 1, 2)).set(0.5):
        steps, logits = model.backbone.forward_steps(model.normalise(images)), model(images)
    assert torch.equal(steps, expected) and not torch.equal(logits, before)
    assert untouched(model.backbone) and torch.equal(model(images), before)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["spiking", "spiking in pieces", "recurrent", "delayed"])
@given(steps=st.sets(st.integers(0, 2), min_size=1), seed=st.integers(0, 9))
@settings(max_examples=4, deadline=None)
def test_steps_are_counted_right_wherever_a_value_begins(models, images, kind, steps, seed):
    """Values of all steps, of some at a time and of one: the same as a change by hand."""
    model = models[kind]
    name = next(site.name for site in sites(model.backbone) if site.stage is None)  # an activation, or neurons
    number = float(torch.rand((), generator=torch.Generator().manual_seed(seed)))

    def change(step, value):
        return value.index_fill(1, torch.tensor([2]), number) if step in steps else value

    expected = under(model, images, {name: change})
    with do(model, name=name, step=steps, channel=2).set(number):
        assert torch.equal(model.backbone.forward_steps(model.normalise(images)), expected)
    first = min(steps)
    plain = model.backbone.forward_steps(model.normalise(images))
    lag = len(plain) - model.backbone.steps  # biological unrolling has its first step that is no zero later
    assert torch.equal(expected[: first - lag], plain[: first - lag]) or first <= lag


@torch.no_grad()
@pytest.mark.parametrize("site", [{"stage": 0}, {"name": "features"}, {"name": "input"}])
def test_with_its_own_value_a_network_is_itself(model, images, site):
    (own,) = collected(model, images, [Place(site.get("stage"), site.get("name", ""))])
    expected = model(images)
    aim = do(model, **site)
    for doing in (aim.put(own), aim.interpolate(0.0, images[:1]), aim.resample(images)):
        with doing:
            torch.testing.assert_close(model(images), expected)


@torch.no_grad()
def test_with_another_ones_values_a_network_answers_as_for_the_other(model, images, others):
    """All that its features follow from is the other's, from the step on in which it is."""
    expected, own = (model.backbone.forward_steps(model.normalise(x)) for x in (others, images))
    with do(model, name="input").resample(others):
        torch.testing.assert_close(model.backbone.forward_steps(model.normalise(images)), expected)
    with do(model, name="features").interpolate(0.25, others):
        mixed = model.backbone.forward_steps(model.normalise(images))
    torch.testing.assert_close(mixed, 0.75 * own + 0.25 * expected)
    turn = exchanged(len(images), seed=3)
    assert sorted(turn.tolist()) == list(range(6)) and not (turn == torch.arange(6)).any()
    with do(model, name="features").resample(seed=3):
        torch.testing.assert_close(model.backbone.forward_steps(model.normalise(images)), own[:, turn])


@torch.no_grad()
def test_means_are_of_every_step_and_do_not_depend_on_batches(model, images):
    many = torch.cat([images, images.flip(0) * 0.5, images**2])
    labels = torch.arange(18) % 3
    place = Place(1, channels=(0, 2))
    (values,) = collected(model, many, [place], batch=5)
    whole = collected(model, many, [Place(1)])[0]
    torch.testing.assert_close(values, whole[:, :, [0, 2]], rtol=1e-6, atol=1e-6)
    expected = {
        "mean": under(model, images, {"stages.1": lambda t, v: filled(v, values[t].mean(0, keepdim=True))}),
        "class": under(model, images, {"stages.1": lambda t, v: filled(v, values[t][labels == 1].mean(0))}),
        "batch": under(model, images, {"stages.1": lambda _, v: filled(v, v[:, [0, 2]].mean(0))}),
    }
    aim = do(model, stage=1, channel=(0, 2))
    each = torch.tensor([1, 1, 1, 1, 1, 1])
    for doing, name in (
        (aim.mean(many), "mean"),
        (aim.class_mean(many, labels, 1), "class"),
        (aim.class_mean(many, labels, each), "class"),
        (aim.mean(), "batch"),
    ):
        with doing:
            found = model.backbone.forward_steps(model.normalise(images))
        torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-5)


def filled(value, new):
    value[:, [0, 2]] = new.expand(len(value), -1, -1, -1)
    return value


@torch.no_grad()
def test_noise_is_the_same_in_every_run_and_as_large_as_asked(models, images):
    for kind in ("plain", "spiking"):
        model, aim = models[kind], do(models[kind], stage=0)
        found = []
        for doing in (aim.noise(0.5, seed=1), aim.noise(0.5, seed=1), aim.noise(0.5, seed=2)):
            with doing:
                found.append(model(images))
        assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
        (own,) = collected(model, images, [Place(0)])
        values = []

        def keep(site, value, values=values):
            if site.stage == 0:
                values.append(value.clone())
            return value

        for mean, middle in ((None, own), (2.0, 2.0)):
            with aim.noise(0.5, mean):
                values.clear()
                tapped_steps(model.backbone, model.normalise(images), keep)
            drawn = torch.cat(values) - middle
            assert abs(float(drawn.mean())) < 0.1 and abs(float(drawn.std()) - 0.5) < 0.1
            assert not torch.equal(drawn[0], drawn[-1]) or kind == "plain"  # new in every step


@torch.no_grad()
def test_backgrounds_are_swapped_on_pictures_and_on_maps(model, images, others):
    foreground = torch.zeros(6, 8, 8, dtype=torch.bool)
    foreground[:, 2:5, 1:6] = True
    picture = torch.where(foreground.unsqueeze(1), images, others)
    with do(model, name="input").background(foreground, others):
        torch.testing.assert_close(model(images), model(picture))
    cover = foreground.float().view(6, 1, 4, 2, 4, 2).mean((3, 5))
    assert cover.unique().tolist() == [0, 0.25, 0.5, 1]
    (own,), (other,) = (collected(model, x, [Place(0)]) for x in (images, others))
    mixed = {"stages.0": lambda t, _: cover * own[t] + (1 - cover) * other[t]}
    if own.shape[-1] == 4 and own.shape[0] == 1:  # nothing before it feels what is set
        with do(model, stage=0).background(foreground, others):
            found = model.backbone.forward_steps(model.normalise(images))
        torch.testing.assert_close(found, under(model, images, mixed))
    with do(model, stage=0).background(torch.ones(1, 8, 8, dtype=torch.bool)):
        torch.testing.assert_close(model(images), own_answers(model, images))


def own_answers(model, images):
    return model(images)


@torch.no_grad()
def test_a_still_image_may_change_in_single_steps(models, images, others):
    for kind in ("spiking", "recurrent", "delayed"):
        model = models[kind]
        steps = model.backbone.steps
        x, y = model.normalise(images), model.normalise(others)
        frames = torch.stack([y if step == 1 else x for step in range(steps)], 1)
        with do(model, name="input", step=1).resample(others):
            torch.testing.assert_close(model(images), model.head(model.backbone(frames)))
        with do(model, name="input", step=1).zero():
            torch.testing.assert_close(model(frames := torch.stack([images] * steps, 1)), zeroed_step(model, frames, 1))


def zeroed_step(model, frames, step):
    with torch.no_grad():
        changed = model.normalise(frames).clone()
        changed[:, step] = 0
        net = type(model.backbone)
        return model.head(net.forward(model.backbone, changed))


@torch.no_grad()
def test_declared_in_any_order_they_do_the_same(models, images, others):
    for kind in ("plain", "recurrent"):
        model = models[kind]
        parts = [
            do(model, stage=2, channel=(0, 1)).mean(),
            do(model, stage=0, region=(0, 0, 1, 1)).resample(others),
            do(model, stage=2, channel=(2, 5)).resample(seed=1),
            do(model, name="input", region=(3, 3, 5, 5)).zero(),
        ]
        found = []
        for a, b, c, d in [*permutations(parts)][::8]:
            with a & b & c & d:
                found.append(model(images))
        assert len(found) == 3 and all(torch.equal(found[0], other) for other in found[1:])
        assert not torch.equal(found[0], model(images))


@torch.no_grad()
def test_contexts_in_one_another_compose_and_the_inner_one_comes_last(model, images):
    outer, inner = do(model, stage=1).set(1.0), do(model, stage=1, channel=0).zero()
    expected = under(model, images, {"stages.1": lambda _, v: torch.ones_like(v).index_fill(1, torch.tensor([0]), 0.0)})
    with outer:
        ones = model.backbone.forward_steps(model.normalise(images))
        with inner, do(model, name="input").resample(images[:1]):  # collected from the network as it is
            assert torch.equal(model.backbone.forward_steps(model.normalise(images))[-1], expected[-1])
        assert torch.equal(model.backbone.forward_steps(model.normalise(images)), ones)
    assert untouched(model.backbone)


@torch.no_grad()
def test_values_of_others_are_those_of_the_network_as_it_is_but_for_taps_that_are_its_own(models, images, others):
    model = models["plain"]

    def gate(site, value):
        return value * 0.5 if site.stage == 0 else value

    attach(model.backbone, gate)
    try:
        answers = model(others)
        with do(model, stage=1).zero(), do(model, stage=1).resample(others):
            torch.testing.assert_close(model(images), answers)
        assert attached(model.backbone) == [gate]
    finally:
        detach(model.backbone, gate)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["plain", "recurrent"])  # an exception within a graph makes torch import its compiler
def test_nothing_is_left_behind_after_an_exception(models, images, kind):
    model = models[kind]
    expected = model(images)
    with pytest.raises(RuntimeError, match="mine"), do(model, stage=0).zero() & do(model, stage=1).mean():
        raise RuntimeError("mine")  # none of them fired, which hides nothing
    with (
        pytest.raises(UserError, match="as many as the batch has images \\(6\\); got 2"),
        do(model, stage=0).resample(images[:2]),
    ):
        model(images)
    assert untouched(model.backbone) and torch.equal(model(images), expected) and not model.training


def test_a_network_that_nobody_looks_into_runs_its_usual_path(models, images, monkeypatch):
    model = models["recurrent"]
    net, taps = model.backbone, []
    usual = type(net).forward_steps
    monkeypatch.setattr(type(net), "forward_steps", lambda self, x, tap=None: taps.append(tap) or usual(self, x, tap))
    doing = do(model, stage=1).zero()
    taps.clear()
    model(images)
    with doing:
        model(images)
    model(images)
    assert taps[0] is None and taps[1] is not None and taps[2] is None and len(taps) == 3


def test_gradients_go_through_what_is_left_and_statistics_stay(models, images, others):
    model = made("plain").train()
    before = {name: b.clone() for name, b in model.named_buffers()}
    doing = do(model, stage=1, channel=0).resample(others) & do(model, stage=0, channel=1).mean()
    with doing:
        assert model.training and all(torch.equal(b, before[name]) for name, b in model.named_buffers())
        model(images).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
    with do(model, stage=1).zero():
        model(images).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert not any(g is not None and g.any() for name, g in grads.items() if name.startswith("backbone.body.0"))


class Twice(nn.Module):
    """A stranger's network: one activation for two layers, and nothing that says what it takes."""

    def __init__(self):
        super().__init__()
        self.conv, self.act, self.out = nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.act(self.out(self.act(self.conv(x)).mean((2, 3))) + 1)


@torch.no_grad()
def test_strangers_networks_are_changed_too(images):
    torch.manual_seed(0)
    net = Twice()
    assert not do(net, name="act", channel=9).zero().interventions[0].place.steps  # nothing is known yet
    with do(net, name="act", region=(0, 0, 6, 5)).zero() & do(net, name="act#2", channel=0).set(7.0):
        changed = net(images)
    hidden = net.conv(images).relu()
    hidden[:, :, :, :5] = 0
    expected = (net.out(hidden.mean((2, 3))) + 1).relu()
    expected[:, 0] = 7
    torch.testing.assert_close(changed, expected)
    values = torch.zeros(1, 6, 3)
    with do(net, name="features").put(values):
        net(images).add_(1)  # a network may write into what it was given
    assert not values.any()
    with (
        pytest.raises(UserError, match="channel of act must be from 0 to 3, the channels of this site; got 9"),
        do(net, name="act", channel=9).zero(),
    ):
        net(images)
    with (
        pytest.raises(UserError, match=r"the name of a place must be that of a site; got nowhere. Sites by name: act"),
        do(net, name="nowhere").zero(),
    ):
        net(images)
    with pytest.raises(UserError, match=r"got nowhere"):
        collected(net, images, [Place(name="nowhere")])
    assert untouched(net)


def test_a_tap_of_changes_runs_once_without_staying(models, images):
    model = models["plain"]
    changes = Changes(model, [Intervention(Place(1), Mean(images)), Intervention(Place(0, channels=(1,)), Constant())])
    found = tapped_steps(model.backbone, model.normalise(images), changes)
    with do(model, stage=0, channel=1).zero() & do(model, stage=1).mean(images):
        assert torch.equal(model.backbone.forward_steps(model.normalise(images)), found)


def test_it_is_offered_as_one_word():
    assert engram.causal.do is do and engram.causal.collected is collected
    with pytest.raises(AttributeError, match=r"module 'engram.causal' has no attribute 'undo'"):
        _ = engram.causal.undo
