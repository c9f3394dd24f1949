"""Gates on hidden units: they close what they should, on any network, and nothing else notices them."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.nets.folding import trace
from engram.backbone.nets.making import adapt, build
from engram.backbone.nets.tapped import tapped_steps
from engram.continual.isolation.gates import gates_of
from engram.continual.isolation.reach import reaches

SHAPE = (1, 8, 8)
NETS = [
    ("mlp", {"width": 0.25}, None),
    ("mlp", {"width": 0.25, "activation": "gelu", "normalisation": "group"}, None),
    ("lenet5", {}, None),
    ("vgg-tiny", {"pooling": "max"}, None),
    ("resnet-tiny", {}, None),
    ("mlp", {"width": 0.25}, "snn.spiking"),
    ("resnet-tiny", {}, "snn.spiking"),
    ("vgg-tiny", {}, "snn.qcfs"),
]


def classifier(name="mlp", options=None, adapter=None) -> Any:
    torch.manual_seed(0)
    model = build(name, options or {}, SHAPE, 5, torch.zeros(1), torch.ones(1))
    if adapter is not None:
        model.backbone = adapt(model.backbone, adapter, {"steps": 2} if adapter == "snn.spiking" else {})
    return model.eval()


@pytest.mark.parametrize(("name", "options", "adapter"), NETS)
def test_closed_channels_are_silent_and_open_ones_untouched(name, options, adapter):
    model, images = classifier(name, options, adapter), 40 * torch.rand(3, *SHAPE)  # QCFS thresholds begin at 8
    before = model(images)
    names = set(model.state_dict())
    gates = gates_of(model)
    assert torch.equal(model(images), before) and set(model.state_dict()) == names
    for gate in gates.values():
        gate.values["test"] = torch.ones(gate.channels)
    assert torch.equal(model(images), before)
    for layer, gate in gates.items():
        half, seen = (torch.arange(gate.channels) % 2).float(), {}
        gate.values["test"] = half
        tapped_steps(model.backbone, images, lambda site, value, seen=seen: seen.setdefault(site.name, value))
        alive = seen[layer].movedim(2, 0).flatten(1).abs().sum(1)
        assert (alive[half == 0] == 0).all() and (alive[half == 1].any() or adapter == "snn.spiking")
        assert not torch.equal(model(images), before) or adapter
        gate.values["test"] = torch.ones(gate.channels)
    for gate in gates.values():
        gate.values["test"] = torch.zeros(gate.channels)
    torch.testing.assert_close(model(images), model.head(torch.zeros(3, int(model.head.in_features))))


def test_a_gated_network_is_the_product_by_hand():
    model, images = classifier(), torch.rand(4, *SHAPE)
    factors = [torch.rand(256), torch.rand(256)]
    for gate, factor in zip(gates_of(model).values(), factors, strict=True):
        gate.values["test"] = factor
    x = images.flatten(1)
    for layer, factor in zip((m for m in model.backbone.modules() if isinstance(m, nn.Linear)), factors, strict=True):
        x = layer(x).relu() * factor
    torch.testing.assert_close(model(images), model.head(x))


def test_recordings_are_gated_at_every_frame():
    for adapter in (None, "snn.spiking"):
        model = classifier("vgg-tiny", adapter=adapter)
        for gate in gates_of(model, frames=3).values():
            gate.values["test"] = torch.zeros(gate.channels)
        assert not model.backbone(torch.rand(2, 3, *SHAPE)).any()


def test_gates_are_put_once_and_owners_multiply():
    model = classifier()
    first, again = gates_of(model), gates_of(model)
    assert list(first.items()) == list(again.items())
    gate = next(iter(first.values()))
    gate.values |= {"one": torch.full((256,), 0.5), "two": torch.full((256,), 0.5)}
    torch.testing.assert_close(gate.apply(torch.ones(1, 2, 256)), torch.full((1, 2, 256), 0.25))


@pytest.mark.parametrize(("name", "adapter"), [("resnet-tiny", None), ("mlp", "snn.spiking")])
def test_a_copy_keeps_what_it_had(name, adapter):
    model, images = classifier(name, adapter=adapter), 40 * torch.rand(3, *SHAPE)
    gates = list(gates_of(model).values())
    for gate in gates:
        value = torch.rand(gate.channels, requires_grad=True)
        gate.values["test"] = value.sigmoid() + 0.5  # part of a graph, as a learned gate is
    teacher, before = copy.deepcopy(model), model(images)
    assert torch.equal(teacher(images), before)
    for gate in gates:
        gate.values["test"] = torch.zeros(gate.channels)
    assert torch.equal(teacher(images), before) and not torch.equal(model(images), before)
    for gate in gates_of(teacher).values():
        gate.values.clear()
    assert not torch.equal(teacher(images), before)
    assert not any(gate.values["test"].any() for gate in gates)


def test_a_graph_of_a_gated_network_is_that_of_the_network():
    model, images = classifier("resnet-tiny"), torch.rand(2, *SHAPE)
    open_features = model.backbone(images)
    for gate in gates_of(model).values():
        gate.values["test"] = torch.rand(gate.channels)
    assert not torch.equal(model.backbone(images), open_features)
    torch.testing.assert_close(trace(model.backbone)(images), open_features)


class Tokens(nn.Module):
    """Channels last, as in a transformer."""

    in_shape = SHAPE

    def __init__(self):
        super().__init__()
        self.embed, self.act, self.out = nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 6)

    def forward(self, x):
        return self.out(self.act(self.embed(x.flatten(1, 2)))).mean(1)


class Shared(nn.Module):
    """One activation for two widths, or none that is a module."""

    in_shape = SHAPE

    def __init__(self, shared):
        super().__init__()
        self.one, self.two, self.act = nn.Linear(64, 12), nn.Linear(12, 6), nn.ReLU() if shared else torch.relu

    def forward(self, x):
        return self.act(self.two(self.act(self.one(x.flatten(1)))))


def test_channels_of_linear_layers_are_last():
    model = nn.Module()
    model.backbone = Tokens()
    (gate,) = gates_of(model).values()
    assert (gate.channels, gate.dimension) == (12, -1)
    gate.values["test"] = torch.zeros(12)
    torch.testing.assert_close(model.backbone(torch.rand(2, *SHAPE)), model.backbone.out.bias.expand(2, -1))


def test_an_activation_that_is_called_twice_has_two_gates():
    model, images = nn.Module(), torch.rand(2, *SHAPE)
    net = model.backbone = Shared(True)
    first, second = (gate := gates_of(model))["act"], gate["act#2"]
    assert (first.channels, second.channels) == (12, 6)
    second.values["test"] = torch.arange(6.0)
    expected = torch.relu(net.two(torch.relu(net.one(images.flatten(1))))) * torch.arange(6.0)
    torch.testing.assert_close(net(images), expected)
    found = reaches(net, gate)
    assert found["two.weight"].behind == {"act#2"} and found["two.weight"].before == {"act"}


def test_a_network_without_activations_that_are_modules_is_refused():
    model = nn.Module()
    model.backbone = Shared(False)
    with pytest.raises(UserError, match="activations are modules"):
        gates_of(model)
