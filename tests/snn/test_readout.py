"""Features from rates, latencies and membranes of the last neurons: closed forms, and networks of both kinds."""

import pytest
import torch
from torch import nn

from engram.backbone.contract import Spiking
from engram.backbone.errors import UserError
from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.classifier import Classifier
from engram.snn.conversion.convert import convert
from engram.snn.conversion.methods import Conversion
from engram.snn.conversion.storage import restore
from engram.snn.readout.adapter import last_neurons, readout
from engram.snn.readout.options import ReadoutOptions
from engram.snn.training.adapter import spiking
from engram.snn.training.options import SpikingOptions

STEPS = 8
LATENCY, MEMBRANE = ReadoutOptions(code="latency"), ReadoutOptions(code="membrane")


def perceptron(weights, pool=None):
    """Pictures [1, 1, N] -> a ReLU for each pixel times its weight, over windows of ``pool``."""
    count = len(weights)
    layer = nn.Linear(count, count, bias=False)
    layer.weight.data = torch.tensor(weights).diag()
    tail = [nn.Flatten(), layer, nn.ReLU()]
    tail += [] if pool is None else [nn.Unflatten(1, (count // pool, 1, pool)), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return StaticBackbone((1, 1, count), [nn.Identity()], nn.Sequential(*tail))


def spiking_of(net, **options):
    return spiking(net.eval(), SpikingOptions(steps=STEPS, neuron="if", **options)).eval()


DRIVES = [1.5, 1.0, 0.5, 0.3, 0.125, 0.1, 0.0, -1.0]
FIRST = [1, 1, 2, 4, 8, None, None, None]  # the step at which the sum of the drives reaches 1


def test_latency_says_when_the_first_spike_comes():
    net = spiking_of(perceptron(DRIVES))
    x = torch.ones(1, 1, 1, len(DRIVES))
    expected = [0.0 if first is None else 1 - (first - 1) / STEPS for first in FIRST]
    assert readout(net, LATENCY)(x)[0].tolist() == pytest.approx(expected)
    rates = [min(int(STEPS * drive + 1e-6), STEPS) / STEPS for drive in (max(each, 0) for each in DRIVES)]
    assert net(x)[0].tolist() == pytest.approx(rates)
    assert torch.equal(readout(net, ReadoutOptions(code="rate"))(x), net(x))


def test_after_any_number_of_steps_latency_is_that_of_these_steps():
    features = readout(spiking_of(perceptron(DRIVES)), LATENCY).forward_steps(torch.ones(1, 1, 1, len(DRIVES)))
    for steps in range(1, STEPS + 1):
        found = features[:steps].mean(0)[0].tolist()
        expected = [0.0 if k is None or k > steps else 1 - (k - 1) / steps for k in FIRST]
        assert found == pytest.approx(expected)


def test_pooled_features_are_means_of_the_neurons_latencies():
    net = readout(spiking_of(perceptron(DRIVES, pool=4)), LATENCY)
    each = torch.tensor([0.0 if first is None else 1 - (first - 1) / STEPS for first in FIRST])
    assert torch.allclose(net(torch.ones(1, 1, 1, 8))[0], each.view(2, 4).mean(1))


def test_the_membrane_is_the_mean_drive_whatever_the_neuron_would_do():
    x = torch.tensor([[[[1.0] * 8]], [[[0.5] * 8]]])
    for options in ({}, {"reset": "hard", "threshold": 0.25}, {"learn_scale": True}, {"start": 0.5}):
        net = readout(spiking_of(perceptron(DRIVES), **options), MEMBRANE)
        assert torch.allclose(net(x), x.flatten(1) * torch.tensor(DRIVES))
        assert net.forward_steps(x).shape == (STEPS, 2, 8)


def test_frames_are_steps_of_the_membrane_and_of_the_latency():
    frames = torch.zeros(1, STEPS, 1, 1, 8)
    frames[0, 4:] = 1.0
    net = spiking_of(perceptron(DRIVES))
    assert torch.allclose(readout(net, MEMBRANE)(frames)[0], torch.tensor(DRIVES) / 2)
    expected = [0.0 if first is None or first > 4 else 1 - (first + 4 - 1) / STEPS for first in FIRST]
    assert readout(net, LATENCY)(frames)[0].tolist() == pytest.approx(expected)


@pytest.fixture(params=["trained", "converted", "trained on"])
def net(request, residual_net, images):
    if request.param == "trained":
        return spiking(residual_net, SpikingOptions(steps=STEPS, learn_scale=True)).eval()
    head = nn.Linear(residual_net.feature_dim, 3)
    analog = Classifier(residual_net, head, torch.zeros(2), torch.ones(2)).eval()
    made = convert(analog, [images], len(images), steps=STEPS, calibration="bias").backbone
    return made if request.param == "converted" else spiking(made, SpikingOptions(steps=STEPS, neuron="if")).eval()


def test_the_last_layer_alone_is_read_in_another_way(net, images):
    (last,) = last_neurons(net.graph)
    assert str(last.target) == list(net.neurons())[-1]
    seen = {}

    def tap(site, value):
        seen[site.name] = value.clone()
        return value

    with torch.no_grad():
        rates = net.forward_steps(images, tap)
        latencies, membranes = (readout(net, each) for each in (LATENCY, MEMBRANE))
        spikes = seen[f"graph.{last.target}"]
        on = spikes > 0
        assert torch.equal(latencies.forward_steps(images) > 0, rates.cumsum(0) > 0)
        held = {}
        latencies.forward_steps(images, lambda site, value: held.setdefault(site.name, value.clone()))
        assert all(torch.equal(held[name], seen[name]) for name in seen if name.startswith("graph."))
        pooled = on.cumsum(0).gt(0).float().flatten(3).mean(3)
        ratio = latencies.forward_steps(images) / pooled.clamp_min(1e-9)  # what a spike stands for
        assert torch.allclose(ratio.amax((0, 1)) * pooled, latencies.forward_steps(images), atol=1e-5)
        assert isinstance(membranes, Spiking) and len(membranes.neurons()) == len(net.neurons()) - 1
        assert membranes(images).min() < 0 or bool((net(images) >= 0).all())


def test_what_the_network_was_stays_as_it_was(net, images):
    before, names = net(images), list(net.state_dict())
    for options in (LATENCY, MEMBRANE):
        readout(net, options)
    assert torch.equal(net(images), before) and list(net.state_dict()) == names


def test_the_membrane_of_a_converted_network_is_what_its_last_layer_computes(sequential_net, images):
    """With as many steps as thresholds resolve everything, the mean drive is the trained network's own."""
    analog = Classifier(sequential_net, nn.Linear(5, 3), torch.zeros(2), torch.ones(2)).eval()
    made = convert(analog, [images], len(images), steps=512, threshold="max", calibration="none").backbone
    (features,) = [module for module in sequential_net.modules() if isinstance(module, nn.Linear)]
    drives = []
    features.register_forward_hook(lambda _m, _i, out: drives.append(out))
    with torch.no_grad():
        sequential_net(images)
        found = readout(made, MEMBRANE)(images)
    assert (found - drives[0]).abs().max() < 0.02 * drives[0].abs().max()


@pytest.mark.parametrize("options", [LATENCY, MEMBRANE])
def test_a_converted_network_read_in_another_way_is_made_again_from_what_was_saved(options, residual_net, images):
    analog = Classifier(residual_net, nn.Linear(4, 3), torch.zeros(2), torch.ones(2)).eval()
    made = readout(convert(analog, [images], len(images), steps=4, calibration="bias").backbone, options)
    saved = made.state_dict()
    again = readout(restore(residual_net, Conversion(steps=4, calibration="bias"), saved), options)
    again.load_state_dict(saved)
    assert torch.equal(again(images), made(images))


def test_scales_that_were_learned_stay_where_features_are_read_in_another_way(residual_net, images):
    def made():
        return spiking(residual_net, SpikingOptions(steps=4, learn_scale=True))

    trained, fresh = made(), readout(made(), LATENCY)
    trained.load_state_dict(
        {**trained.state_dict(), **{k: v + 1 for k, v in trained.named_parameters() if "scale" in k}}
    )
    again = readout(trained, LATENCY)
    before = {name: value.clone() for name, value in again.state_dict().items()}
    again.calibrate(images)
    assert all(torch.equal(value, before[name]) for name, value in again.state_dict().items())
    scales = [each.scale.clone() for each in fresh.neurons().values()]
    fresh.calibrate(images)  # of an analog network that was trained
    assert not any(torch.equal(each.scale, was) for each, was in zip(fresh.neurons().values(), scales, strict=True))


def test_gradients_go_through_first_spikes_and_membranes(images):
    for options in (LATENCY, MEMBRANE):
        torch.manual_seed(0)
        net = StaticBackbone((2, 8, 8), [nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())], nn.Flatten())
        made = readout(spiking(net, SpikingOptions(steps=4)), options).train()
        made(images).square().sum().backward()
        assert all(bool(each.grad.isfinite().all()) and each.grad.any() for each in made.parameters())


def test_first_spikes_know_no_parts_of_a_run(images):
    net = StaticBackbone((2, 8, 8), [nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())], nn.Flatten())
    made = readout(spiking(net, SpikingOptions(steps=4, truncate=2)), LATENCY).train()
    with pytest.raises(UserError, match="--truncate, --checkpoint-steps and --gradient-checkpointing must be left out"):
        made(images)
    assert readout(spiking(net, SpikingOptions(steps=4, truncate=2)), MEMBRANE).train()(images).requires_grad


def test_a_network_without_spikes_is_refused():
    with pytest.raises(UserError, match=r"a network for snn\.readout must be Spiking"):
        readout(perceptron(DRIVES), MEMBRANE)
