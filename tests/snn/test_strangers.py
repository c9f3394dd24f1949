"""Networks as people write them become spiking in every way there is, whatever shapes their code asks for."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import Classifier
from engram.snn.conversion.convert import convert
from engram.snn.conversion.methods import Conversion
from engram.snn.conversion.preflight import inspect
from engram.snn.conversion.storage import restore
from engram.snn.training.adapter import spiking
from engram.snn.training.options import QCFSOptions, SpikingOptions
from engram.snn.training.qcfs import qcfs


@pytest.fixture
def images():
    return torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def settled(stranger, images):
    """The network with BatchNorm statistics of its own."""
    for _ in range(20):
        stranger.train()(images - 0.5)
    return stranger.eval()


def classifier(net):
    torch.manual_seed(1)
    return Classifier(net, nn.Linear(12, 3), torch.full((3,), 0.5), torch.ones(3)).eval()


@pytest.mark.parametrize("calibration", ["potential", "weights"])
def test_they_are_converted(settled, images, calibration):
    model = classifier(settled)
    inspect(model.backbone, model.head).require()
    with torch.no_grad():
        expected = model(images)
        made = convert(model, [images], len(images), steps=256, calibration=calibration, calibration_steps=32)
        features = made.backbone.forward_steps(made.normalise(images))
        torch.testing.assert_close(made(images), expected, atol=0.05, rtol=0.1)
        frames = made.normalise(images)[:, None].expand(-1, 256, -1, -1, -1)
        torch.testing.assert_close(made.backbone.forward_steps(frames), features, atol=1e-4, rtol=1e-4)


def test_they_are_quantised_and_converted(settled, images):
    model = classifier(qcfs(settled, QCFSOptions(levels=8)))
    model.backbone.calibrate(model.normalise(images))
    model.backbone.train()(model.normalise(images)).sum().backward()
    model.eval()
    with torch.no_grad():
        made = convert(model, [images], len(images), steps=64)
        torch.testing.assert_close(made(images), model(images), atol=0.2, rtol=0.1)


def step_by_step(net, frames):
    """Integrate-and-fire with soft reset at the three activations, for every step of [T, B, ...] in turn."""
    v, out = [0.0] * 3, []

    def fire(place, drive):
        v[place] = v[place] + drive
        spikes = (v[place] >= 1).float()
        v[place] = v[place] - spikes
        return spikes

    for x in frames:
        y = net.pool(fire(0, net.conv1(x)))
        y = net.pool(fire(1, net.norm(net.conv2(y))))
        out.append(fire(2, net.fc(y.flatten(1))))
    return torch.stack(out)


@torch.no_grad()
def test_they_get_spiking_neurons(settled, images):
    for layer in (settled.conv1, settled.conv2, settled.fc):
        layer.weight *= 3  # so that there are spikes in every layer
    net = spiking(settled, SpikingOptions(steps=5, neuron="if"))
    still = images[None].expand(5, -1, -1, -1, -1)
    expected = step_by_step(settled, still)
    assert 0.02 < expected.mean() < 0.98
    torch.testing.assert_close(net.forward_steps(images), expected)
    torch.testing.assert_close(net.forward_steps(still.transpose(0, 1)), expected)
    assert net.stages(images)[1].shape == (24, 8, 2, 2)


def test_they_are_trained_in_parts_of_time(settled, images):
    options = {"steps": 5, "neuron": "if"}
    whole = spiking(settled, SpikingOptions(**options))
    parts = spiking(settled, SpikingOptions(**options, checkpoint_steps=2))
    for net in (whole, parts):
        net(images).square().sum().backward()
    for ours, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


class Plain(nn.Module):
    """With no more than the contract asks for, and weights that are computed from others."""

    in_shape, feature_dim, stage_channels = (3, 8, 8), 12, (4,)
    steps, readout = 1, "mean"

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 3), nn.ReLU()
        self.fc = nn.Linear(144, 12)
        weight_norm(self.conv)
        prune.random_unstructured(self.fc, "weight", 0.5)

    def stages(self, x):
        return [self.act(self.conv(x))]

    def forward_steps(self, x):
        return self(x)[None]

    def forward(self, x):
        return self.act(self.fc(self.stages(x)[0].flatten(1)))


def test_computed_weights_and_no_features_are_no_obstacle(images):
    torch.manual_seed(0)
    model = classifier(Plain())
    x = model.normalise(images)
    model.backbone(x).sum().backward()
    inspect(model.backbone, model.head).require()
    made = convert(model, [images], len(images), steps=256, threshold="max", calibration="none")
    expected = model.backbone(x).detach()
    assert (made.backbone(x) - expected).norm() < 0.02 * expected.norm()
    how = Conversion(steps=256, threshold="max", calibration="none")
    again = restore(Plain(), how, made.backbone.state_dict())
    again.load_state_dict(made.backbone.state_dict())
    assert torch.equal(again(x), made.backbone(x))

    quantised = qcfs(model.backbone, QCFSOptions(levels=256))
    quantised.calibrate(x)
    assert (quantised(x) - expected).norm() < 0.02 * expected.norm()
    trained = spiking(model.backbone, SpikingOptions(steps=4))
    trained(x).sum().backward()
    assert all(parameter.grad is not None for parameter in trained.parameters())
    gone = model.backbone.fc.weight_mask == 0
    assert (trained.graph.fc.weight[gone] == 0).all()


class Squeezing(nn.Module):
    in_shape, feature_dim, stage_channels = (3, 8, 8), 4, (4,)
    steps, readout = 1, "mean"

    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)

    def stages(self, x):
        return [torch.relu(self.conv(x))]

    def features(self, x):
        return self.pool(self.stages(x)[0]).squeeze()

    def forward(self, x):
        return self.features(x)


def test_what_drops_the_batch_of_a_single_image_is_named():
    net = Squeezing().eval()
    with pytest.raises(UserError, match=r"squeeze at squeeze: it drops the batch of a single image"):
        spiking(net, SpikingOptions())
    with pytest.raises(UserError, match=r"squeeze.*use flatten\(1\)"):
        inspect(net, nn.Linear(4, 2)).require()


class Discarding(Squeezing):
    """What an activation in place returns is not used; what it overwrote is."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def stages(self, x):
        y = self.conv(x)
        self.act(y)
        return [y]

    def features(self, x):
        return self.pool(self.stages(x)[0]).flatten(1)


@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), torch.relu_])
def test_what_was_overwritten_is_what_the_activation_made_of_it(act, images):
    net = Discarding(act).eval()
    quantised = qcfs(net, QCFSOptions(levels=64))
    quantised.calibrate(images)
    torch.testing.assert_close(quantised(images), net(images), atol=0.02, rtol=0)
    neurons = spiking(copy.deepcopy(net), SpikingOptions(steps=200, neuron="if", start=0.5))
    torch.testing.assert_close(neurons(images), net(images).clamp(max=1), atol=0.02, rtol=0)
