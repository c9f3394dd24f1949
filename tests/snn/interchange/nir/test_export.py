"""Our networks as NIR graphs: what they compute, and what is refused or listed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from engram.backbone.contract import Backbone
from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import Classifier
from engram.backbone.registry import Registry
from engram.snn.conversion.convert import convert
from engram.snn.interchange.nir.export import export
from engram.snn.interchange.nir.interpreter import interpret
from engram.snn.interchange.nir.network import NirNetwork
from engram.snn.interchange.nir.options import NirOptions
from engram.snn.interchange.nir.reading import from_nir, read
from engram.snn.interchange.nir.semantics import said_by
from engram.snn.interchange.nir.writing import to_nir, write
from engram.snn.lowering.lower import lower
from engram.snn.lowering.network import INPUT, Cells, Connection, Lowered, Population
from engram.snn.lowering.running import run
from engram.snn.training.adapter import spiking
from engram.snn.training.options import SpikingOptions

NEURONS = {
    "if soft": {"neuron": "if", "start": 0.5, "threshold": 0.2},
    "if hard": {"neuron": "if", "reset": "hard", "threshold": 0.3},
    "lif soft": {"neuron": "lif", "decay": 0.7, "threshold": 0.2},
    "cuba-lif": {"neuron": "cuba-lif", "synaptic_decay": 0.4, "threshold": 0.2, "reset": "hard"},
    "refractory": {"neuron": "lif", "refractory": 2, "threshold": 0.2},
    "scales": {"neuron": "if", "start": 0.5, "learn_scale": True, "threshold": 0.5},
}


def trained(name, net="vgg-tiny", shape=(2, 8, 8), **more):
    torch.manual_seed(0)
    registry = Registry.discover()
    options = registry.options("backbones", net)(**more)
    backbone = spiking(registry.load("backbones", net)(shape, options), SpikingOptions(steps=6, **NEURONS[name]))
    assert isinstance(backbone, Backbone)
    means = torch.tensor([0.3, 0.4]), torch.tensor([0.5, 0.7])
    return Classifier(backbone, nn.Linear(backbone.feature_dim, 4), *means).eval().double()


def logits(exported, x, in_shape):
    """Of the graph as a network of ours; x: as `run` takes it."""
    net = NirNetwork(from_nir(to_nir(exported.graph)), in_shape, NirOptions()).double()
    return net.forward_steps(x * 255 if x.ndim == 5 else x).detach()


@pytest.mark.parametrize("frames", [None, 5])
@pytest.mark.parametrize("name", NEURONS)
def test_a_trained_network_computes_the_same_as_a_graph(name, frames):
    model = trained(name, width=0.25, normalisation="batch")
    lowered = lower(model, frames is not None)
    shape = (3, *(() if frames is None else (frames,)), 2, 8, 8)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = logits(export(lowered, allow_approximate=True), x, (2, 8, 8))
    expected = run(lowered, x)
    assert expected.std(1).max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_converted_network_survives_its_file(digits, tmp_path):
    registry = Registry.discover()
    torch.manual_seed(0)
    options = registry.options("backbones", "lenet5")(activation="relu", pooling="avg")
    net = registry.load("backbones", "lenet5")(digits.in_shape, options)
    model = Classifier(net, nn.Linear(net.feature_dim, 10), digits.mean, digits.std).eval()
    shown = [images for images, _, _ in digits.train.batches(torch.arange(64), 64, "cpu")]
    converted = convert(model, shown, 64, steps=8).double()
    exported = export(lower(converted), allow_approximate=True)
    whats = {row["what"] for row in exported.approximations}
    assert whats == {"the soft reset", "the potential before the first step"}
    write(exported.graph, tmp_path / "net.nir")
    graph = read(tmp_path / "net.nir")
    assert said_by(graph.metadata) == exported.semantics
    x = next(digits.test.batches(torch.arange(20), 20, "cpu"))[0].double() / 255
    again = NirNetwork(graph, digits.in_shape, NirOptions()).double()
    torch.testing.assert_close(again(x), converted(x), rtol=1e-5, atol=1e-5)


def test_what_nir_has_no_field_for_is_refused_and_listed():
    lowered = lower(trained("refractory"))
    with pytest.raises(UserError) as refused:
        export(lowered)
    for words in (
        "the soft reset must be something NIR has a field for",
        "the refractory period",
        "Add --allow-approximate",
    ):
        assert words in str(refused.value)
    hard = lower(trained("if hard"))
    assert not export(hard).approximations and "mean of the output" in export(hard).notes[0]


def small(cells, delay=0, extra=(), **more):
    """Input -> one layer of neurons -> read-out, with a connection back."""
    first = nn.Linear(2, 3).double()
    back = Connection(source="a", layers=nn.Sequential(nn.Linear(3, 3, bias=False).double()), delay=delay)
    hidden = (Connection(source=INPUT, layers=nn.Sequential(nn.Flatten(), first)), *([back] if delay else []), *extra)
    read = Connection(source="a", layers=nn.Sequential(nn.Linear(3, 2).double()))
    populations = (
        Population(name="a", shape=(3,), cells=cells, connections=hidden),
        Population(name="head", shape=(2,), cells=Cells(kind="integrator"), connections=(read,)),
    )
    return Lowered(in_shape=(2, 1, 1), populations=populations, steps=9, **more)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_currents_delays_and_circles(delay):
    torch.manual_seed(0)
    current = torch.tensor([0.1, 0.2, -0.05], dtype=torch.float64)
    for decay in (1.0, 0.75):
        cells = Cells(kind="spiking", decay=decay, threshold=torch.tensor([0.2]), current=current, reset="hard")
        lowered = small(cells, delay)
        exported = export(lowered, allow_approximate=True)
        x = torch.rand(4, 2, 1, 1, dtype=torch.float64)
        expected = run(lowered, x)
        torch.testing.assert_close(logits(exported, x, (2, 1, 1)), expected, rtol=1e-6, atol=1e-6)
        repeated = np.repeat(x.numpy()[None], 9, 0)
        found = interpret(exported.graph, repeated, exported.semantics).outputs
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6, atol=1e-6)


def test_what_nir_cannot_say_at_all():
    with pytest.raises(UserError, match=r"neurons a of a network for NIR must be spiking; got relu"):
        export(small(Cells(kind="relu")), allow_approximate=True)
    with pytest.raises(UserError, match=r"neurons a of a network for NIR must be leaky"):
        export(small(Cells(kind="spiking", synaptic_decay=0.5)), allow_approximate=True)
    odd = small(Cells(kind="spiking"))
    layers = nn.Sequential(nn.MaxPool2d(2))
    populations = (
        replace(odd.populations[0], connections=(Connection(source=INPUT, layers=layers),)),
        *odd.populations[1:],
    )
    with pytest.raises(UserError, match=r"a layer before a for NIR must be one it has a node for; got MaxPool2d"):
        export(replace(odd, populations=populations), allow_approximate=True)


def test_a_threshold_is_reached_at_itself():
    """Ours fire at the threshold, NIR above it: a float32 below is the same for float32."""
    lowered = small(Cells(kind="spiking", threshold=torch.tensor([0.75]), reset="hard"))
    first = lowered.populations[0].connections[0].layers[1]
    first.weight.data = torch.tensor([[0.25, 0.0], [0.5, 0.0], [0.75, 0.0]]).double()
    first.bias.data.zero_()
    exported = export(lowered, allow_approximate=True)
    assert exported.semantics.comparison == ">"
    sent = interpret(exported.graph, np.ones((9, 1, 2, 1, 1)), exported.semantics, ["a"], np.float32).sent["a"][:, 0]
    assert sent.sum(0).tolist() == [3.0, 4.0, 9.0]
