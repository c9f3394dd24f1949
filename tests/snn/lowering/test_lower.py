"""Trained classifiers as populations and connections."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import Classifier
from engram.backbone.registry import Registry
from engram.snn.conversion.convert import convert
from engram.snn.lowering.lower import lower, refusals
from engram.snn.lowering.network import Cells, Connection, Lowered, Population
from engram.snn.lowering.running import run, steps
from engram.snn.readout.adapter import readout
from engram.snn.readout.options import ReadoutOptions
from engram.snn.training.adapter import spiking
from engram.snn.training.options import SpikingOptions


def made(name, shape=(2, 12, 12), **options):
    factory: Any
    options_of: Any
    factory, options_of = Registry.discover().load("backbones", name), Registry.discover().options("backbones", name)
    return factory(shape, options_of(**options))


def classifier(backbone, classes=4, seed=0):
    """With statistics of its own, so that BatchNorm and normalisation do something."""
    generator = torch.Generator().manual_seed(seed)
    module: Any
    for module in backbone.modules():
        if hasattr(module, "running_mean"):
            for value, low in ((module.running_mean, -0.9), (module.running_var, 0.5), (module.weight, 0.5)):
                value.data = low + torch.rand(value.shape, generator=generator)
    channels = backbone.in_shape[0]
    mean, std = 0.3 + 0.1 * torch.arange(channels), 0.5 + 0.2 * torch.arange(channels)
    model = Classifier(backbone, nn.Linear(backbone.feature_dim, classes), mean, std).eval().double()
    return model


def images(model, count=3, frames=None, seed=1):
    shape = (count, *(() if frames is None else (frames,)), *model.backbone.in_shape)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def own_steps(model, x):
    """The classifier's own logits at every step; its normalisation casts to float32."""
    normalise, mean = model.normalise, model.normalise.mean.view(-1, 1, 1)
    with torch.no_grad():
        return model.head(model.backbone.forward_steps((x - mean) / normalise.std.view(-1, 1, 1)))


def agree(model, frames=None):
    x = images(model, frames=frames)
    found, expected = run(lower(model, frames is not None), x), own_steps(model, x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert expected.std(1).max() > 1e-3
    return lower(model, frames is not None)


NEURONS = {
    "if soft": {"neuron": "if", "start": 0.5},
    "if hard": {"neuron": "if", "reset": "hard", "threshold": 0.3},
    "lif soft": {"neuron": "lif", "decay": 0.7, "threshold": 0.4},
    "lif hard": {"neuron": "lif", "reset": "hard", "threshold": 0.4},
    "plif": {"neuron": "plif", "decay": 0.6, "threshold": 0.4},
    "cuba-lif": {"neuron": "cuba-lif", "synaptic_decay": 0.4, "threshold": 0.4},
    "refractory": {"neuron": "lif", "refractory": 2, "threshold": 0.2},
    "scales": {"neuron": "if", "start": 0.5, "learn_scale": True, "threshold": 0.5},
}


@pytest.mark.parametrize("code", ["latency", "membrane"])
@pytest.mark.parametrize("frames", [None, 5])
@pytest.mark.parametrize("kind", ["trained", "converted"])
def test_features_of_first_spikes_and_membranes_are_populations(code, frames, kind):
    torch.manual_seed(0)
    net = made("vgg-tiny", width=0.25, normalisation="batch")
    model = classifier(net)
    if kind == "converted":
        model = convert(model.float(), [images(model).float()], 3, steps=5, calibration="bias").double()
        model.head.double()
    else:
        model = classifier(spiking(net, SpikingOptions(steps=5, neuron="if", threshold=0.3, learn_scale=True)))
    neurons = list(model.backbone.neurons())
    model.backbone = readout(model.backbone, ReadoutOptions(code=code)).double()
    found = agree(model, frames)
    names = [each.name for each in found.populations]
    if code == "membrane":
        assert names == [*neurons[:-1], "head"]
    else:
        assert names == [*neurons, "since_first_0", "head"]
        assert [(one.source, one.delay) for one in found.populations[-2].connections] == [
            (neurons[-1], 0),
            ("since_first_0", 1),
        ]


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("frames", [None, 5])
def test_a_trained_network_is_its_populations(name, frames):
    torch.manual_seed(0)
    net = spiking(made("vgg-tiny", width=0.25, normalisation="batch"), SpikingOptions(steps=5, **NEURONS[name]))
    for layer in net.neurons().values():
        if layer.scale is not None:
            layer.scale.data = 0.3 + torch.rand(layer.scale.shape)
    found = agree(classifier(net), frames)
    assert found.populations[-1].cells.kind == "integrator"
    sent = {
        float(v)
        for step in steps(found, images(classifier(net), frames=frames))
        for name, one in step.sent.items()
        if name != "input"
        for v in one.unique()
    }
    assert sent <= {0.0, 1.0}


@pytest.mark.parametrize("name", ["resnet-tiny", "lenet5", "mlp", "airnet"])
def test_networks_of_relus_and_of_spikes(name):
    torch.manual_seed(0)
    net = made(name, shape=(2, 18, 18) if name != "mlp" else (2, 6, 6), width=0.25, **({"normalisation": "batch"}))
    found = agree(classifier(net))
    assert {each.cells.kind for each in found.populations[:-1]} == {"relu"}
    agree(classifier(spiking(net, SpikingOptions(steps=4, threshold=0.5, reset="hard"))))


def test_a_sum_is_two_connections():
    torch.manual_seed(0)
    found = lower(classifier(made("resnet-tiny", shape=(1, 8, 8), width=0.25)))
    assert sorted({len(each.connections) for each in found.populations}) == [1, 2]


def test_max_pools_of_spikes_are_neurons():
    torch.manual_seed(0)
    net = spiking(made("lenet5", (1, 14, 14), pooling="max"), SpikingOptions(steps=4, threshold=0.3, learn_scale=True))
    for layer in net.neurons().values():
        assert layer.scale is not None
        layer.scale.data = 0.3 + torch.rand(layer.scale.shape)
    assert len(agree(classifier(net)).populations) == 7


@pytest.mark.parametrize("calibration", ["potential", "bias"])
def test_a_converted_network_is_its_populations(calibration):
    torch.manual_seed(0)
    model = classifier(made("resnet-tiny", shape=(2, 12, 12), width=0.25, pooling="avg")).float()
    batches = [torch.rand(20, 2, 12, 12, generator=torch.Generator().manual_seed(3))]
    twin = convert(model, batches, 20, steps=6, calibration=calibration, delay=1)
    found = agree(twin.double())
    assert (found.delay, found.steps) == (1, 6)
    trained = spiking(
        convert(model, batches, 20, steps=6, calibration=calibration).backbone,
        SpikingOptions(steps=6, neuron="if", learn_scale=True),
    )
    agree(Classifier(trained, model.head, model.normalise.mean, model.normalise.std).eval().double())


class Odd(nn.Module):
    """Padding on two sides, a concatenation, a mean, a factor, and padding in words."""

    def __init__(self):
        super().__init__()
        self.pad, self.a, self.b = (
            nn.ZeroPad2d((0, 1, 2, 0)),
            nn.Conv2d(2, 3, 3, padding="same"),
            nn.Conv2d(2, 2, 2, padding="same"),
        )
        self.act, self.last = nn.ReLU(), nn.Conv2d(5, 4, 3, padding=1, padding_mode="circular")
        self.in_shape, self.feature_dim, self.stage_channels, self.steps, self.readout = (2, 5, 6), 4, (), 1, "mean"

    def features(self, x):
        x = self.pad(x)
        x = F.relu(torch.cat([self.act(self.a(x)), self.b(x) * 0.5], 1))
        return self.last(x).mean((2, 3))

    def forward(self, x):
        return self.features(x)

    def stages(self, x):
        return []

    def forward_steps(self, x, tap=None):
        return self.features(x)[None]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_other_ways_to_write_affine_layers():
    torch.manual_seed(0)
    agree(classifier(Odd()))


class Refused(Odd):
    def features(self, x):
        x = F.max_pool2d(self.act(self.a(x)), 2)
        return torch.sigmoid(self.b(x[:, :2])).flatten(1)[:, :4]


def test_everything_that_cannot_be_said_is_said_at_once():
    model = classifier(Refused())
    kinds = [each.kind for each in refusals(model)]
    assert kinds[0] == "max_pool2d" and "sigmoid" in kinds
    with pytest.raises(UserError, match=r"max_pool2d.*sigmoid"):
        lower(model)
    adaptive = classifier(spiking(made("lenet5", (1, 14, 14)), SpikingOptions(neuron="adaptive-lif")))
    assert [each.reason for each in refusals(adaptive)] == ["its threshold rises with its spikes"] * 4


def test_delays_and_recurrence():
    """Against the recurrence written out."""
    torch.manual_seed(0)
    first, loop, out = (nn.Sequential(nn.Linear(*size)).double() for size in ((4, 3), (3, 3), (3, 2)))
    cells = Cells(kind="spiking", decay=0.5, threshold=torch.full((1,), 0.2))
    hidden = Population(
        name="hidden",
        shape=(3,),
        cells=cells,
        connections=(
            Connection(source="input", layers=nn.Sequential(nn.Flatten(), *first), delay=1),
            Connection(source="hidden", layers=loop, delay=2),
        ),
    )
    read = Population(
        name="out", shape=(2,), cells=Cells(kind="integrator"), connections=(Connection(source="hidden", layers=out),)
    )
    network = Lowered(in_shape=(1, 2, 2), populations=(hidden, read), steps=6, frames=True)
    x = torch.rand(3, 6, 1, 2, 2, dtype=torch.float64)
    v, sent, expected = torch.zeros(3, 3).double(), [torch.zeros(3, 3).double()] * 2, []
    for t in range(6):
        drive = first(x[:, t - 1].flatten(1) if t else torch.zeros(3, 4).double()) + loop(sent[-2])
        u = 0.5 * v + drive
        sent.append((u >= 0.2).double())
        v = u - 0.2 * sent[-1]
        expected.append(out(sent[-1]))
    torch.testing.assert_close(run(network, x), torch.stack(expected).detach())
