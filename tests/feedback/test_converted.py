"""Networks with feedback become spiking: where they come to in the long run, what is refused, what is saved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engram.backbone.contract import Named
from engram.backbone.data.load import load
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model, save_model
from engram.snn.conversion.convert import convert, lower, thresholds_of
from engram.snn.conversion.methods import Conversion
from engram.snn.conversion.preflight import inspect
from engram.snn.conversion.recurrence import LastStep, Recurrent, inside
from engram.snn.conversion.scoring import Scoring
from engram.snn.conversion.storage import as_converted
from engram.snn.simulation.counting import Tally, synapses

THIN = {"width": 0.5}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return load("digits", {}, root=tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def batches(digits):
    return [images for images, _, _ in digits.train.batches(torch.arange(200), 100, "cpu")]


def untrained(digits, adapter="feedback.gated", chain=(), **options):
    torch.manual_seed(0)
    adapters = [*chain, Named(adapter, 1, options)]
    return build("vgg-tiny", THIN, digits.in_shape, 10, digits.mean, digits.std, adapters=adapters).eval()


def strong(model, share):
    """Paths of some strength."""
    draws = torch.Generator().manual_seed(3)
    for path in model.backbone.paths:
        nn.init.normal_(path.conv.weight, 0, share / path.conv.in_channels**0.5, generator=draws)
    return model


def warmed(model, batches):
    """Statistics of its own for every step."""
    model.train()
    with torch.no_grad():
        for _ in range(4):
            for images in batches:
                model(images)
    return model.eval()


@pytest.fixture(scope="module")
def settling(digits, batches):
    return warmed(strong(untrained(digits), 0.3), batches)


@pytest.fixture(scope="module")
def pictures(digits):
    return next(iter(digits.test.batches(torch.arange(40), 40, "cpu")))


def in_the_long_run(model, images, steps=32):
    """Features of the analog network after many steps."""
    x = model.normalise(images)
    return model.backbone.forward_steps(x.unsqueeze(1).expand(-1, steps, -1, -1, -1))[-1]


def distance(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("adapter", "share"), [("feedback.gated", 0.3), ("feedback.additive", 0.03)])
@torch.no_grad()
def test_it_comes_to_where_the_analog_network_stays(digits, batches, pictures, adapter, share):
    model, (images, *_) = warmed(strong(untrained(digits, adapter), share), batches), pictures
    settled = in_the_long_run(model, images)
    assert distance(in_the_long_run(model, images, 16), settled) < 1e-3
    plain = model.backbone.settled()(model.normalise(images))
    assert distance(plain, settled) > 0.1, "feedback does something"
    inspect(model.backbone, model.head).require()
    errors = []
    for steps in (8, 32, 128):
        made = convert(model, batches, 200, steps=steps, threshold="max")
        errors.append(distance(made.backbone(made.normalise(images)), settled))
    assert errors[0] > 1.8 * errors[1] > 3 * errors[2] and errors[2] < 0.05


@pytest.mark.slow
def test_accuracy_comes_to_that_of_the_long_run(digits, batches):
    """On test digits, of a network that was trained for four steps."""
    with torch.random.fork_rng():
        model = untrained(digits).train()
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for _ in range(4):
            for images, labels, _ in digits.train.batches(torch.randperm(len(digits.train)), 64, "cpu"):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
    model.eval()
    images, labels, _ = next(iter(digits.test.batches(torch.arange(300), 300, "cpu")))

    def accuracy(features):
        return float((model.head(features).argmax(1) == labels).float().mean())

    with torch.no_grad():
        settled = accuracy(in_the_long_run(model, images, 64))
        made = convert(model, batches, 200, steps=128)
        assert settled > 0.85 and abs(accuracy(made.backbone(made.normalise(images))) - settled) <= 0.02


@torch.no_grad()
def test_without_paths_it_is_the_converted_network(digits, batches, pictures):
    """Features, spikes and operations of every layer, to the last bit."""
    model, (images, *_) = warmed(untrained(digits, connections="layer3>layer1"), batches), pictures
    made = convert(model, batches, 200, steps=6)
    x, plain = made.normalise(images), made.backbone.inner
    structure = synapses(plain.graph, model.head, plain.in_shape)
    ours, theirs = Tally(structure.fan_out, [2, 6]), Tally(structure.fan_out, [2, 6])
    features, rates = Recurrent(made.backbone).observe(x, ours)
    expected, expected_rates = plain.observe(x, theirs)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(ours.spikes, theirs.spikes) and torch.equal(ours.operations, theirs.operations)
    assert list(rates) == list(expected_rates) and plain.watch is None
    for name, rate in rates.items():
        torch.testing.assert_close(rate, expected_rates[name])


@torch.no_grad()
def test_thresholds_are_of_activations_under_feedback(settling, batches, pictures):
    how = Conversion(steps=8, threshold="max")
    x = settling.normalise(torch.cat(batches))
    graph = lower(inside(settling.backbone))
    found = thresholds_of(graph, [x], len(x), how, LastStep(settling.backbone, graph))
    last = {}
    settling.backbone.forward_steps(x, lambda site, value: last.update({site.name: value}) or value)
    tops = {f"body.{number}.2": last[f"inner.body.{number}.2"].amax((0, 1, 3, 4)) for number in (1, 2)}
    for name, top in tops.items():
        torch.testing.assert_close(found[name].threshold[~found[name].silent], top[top > 0], rtol=1e-4, atol=1e-5)
    made = convert(settling, batches, 200, steps=8, threshold="max")
    scoring = Scoring(settling, made, 8)
    scoring.add(settling.normalise(pictures[0]), pictures[1])
    assert scoring.layers()[0]["relative_error"] < 0.5
    ann, _, first, *_, end = scoring.costs()
    net = settling.backbone
    each = sum(path.conv.weight.numel() for path in net.paths) * net.stage_shapes[-1][1:].numel()
    assert ann["macs"] > 3 * each and end["macs"] - first["macs"] == 7 * each


@pytest.mark.parametrize("connections", [None, "logits>layer1,features>layer2"])
@torch.no_grad()
def test_it_is_saved_and_made_again_to_the_last_bit(digits, batches, pictures, tmp_path, connections):
    registry = Registry.discover()
    chain = [Named("snn.qcfs", 1, {"threshold": 1.0})]
    model = warmed(strong(untrained(digits, chain=chain, connections=connections), 0.3), batches)
    how = Conversion(steps=8)
    made = convert(model, batches, 200, steps=8)
    named = [("snn.qcfs", {"threshold": 1.0}), ("feedback.gated", {"connections": connections})]
    record = Made(
        backbone=in_full(registry, "backbones", "vgg-tiny", THIN),
        adapters=tuple(in_full(registry, "adapters", name, options) for name, options in named),
        head=Named("linear", 1, {}),
        classes=digits.classes,
        in_shape=digits.in_shape,
    )
    save_model(tmp_path, made, as_converted(record, how))
    again, _ = load_model(tmp_path)
    assert again.backbone.delay == 2 and torch.equal(again(pictures[0]), made(pictures[0]))


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ("feedback.predictive", "follow the gradients of prediction errors"),
        ("feedback.equilibrium", "search for a fixed point"),
        ("feedback.blt", "rectified, and with --lrn normalised across channels"),
        ("feedback.lateral", "blocks rectify between their convolutions"),
        ("feedback.generative", "layers run both ways"),
    ],
)
def test_what_cannot_be_is_refused_by_its_reason(digits, adapter, said):
    model = untrained(digits, adapter)
    with pytest.raises(UserError, match=f"must be gated or additive; got .*{said}"):
        inspect(model.backbone, model.head).require()


@pytest.mark.parametrize("wrong", [{"calibration": "weights"}, {"threshold": "ltb"}, {"pre_simulation": 4}])
def test_options_that_look_at_a_network_without_feedback_are_refused(settling, batches, wrong):
    with pytest.raises(UserError, match="for a network with feedback"):
        convert(settling, batches, 200, steps=8, **wrong)
