"""One table of activations: every way to write one, and what conversion and both adapters make of each."""

import inspect as python

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from engram.backbone.nets.blocks import StaticBackbone
from engram.snn.conversion.preflight import inspect
from engram.snn.graph.activations import CALLS, MODULES, RELU, activation, is_gate
from engram.snn.neurons.quantised import QCFS
from engram.snn.training.adapter import spiking
from engram.snn.training.network import SpikingActivation
from engram.snn.training.options import QCFSOptions, SpikingOptions
from engram.snn.training.qcfs import qcfs


class Written(nn.Module):
    """conv - f - conv - g - conv - h, the activations as they are given."""

    def __init__(self, *functions):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(2 if i == 0 else 3, 3, 3, padding=1) for i in range(len(functions))])
        self.modules_used = nn.ModuleList([f for f in functions if isinstance(f, nn.Module)])
        self.functions = functions

    def forward(self, x):
        used = iter(self.modules_used)
        for conv, function in zip(self.convs, self.functions, strict=True):
            x = next(used)(conv(x)) if isinstance(function, nn.Module) else function(conv(x))
        return x


def network(*functions):
    torch.manual_seed(0)
    return StaticBackbone((2, 6, 6), [Written(*functions)], nn.Flatten()).eval()


RELUS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "threshold": nn.Threshold(0, 0),
    "function": F.relu,
    "function in place": lambda x: F.relu(x, inplace=True),
    "torch": torch.relu,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "clamp by name": lambda x: x.clamp(min=0),
    "clamp by place": lambda x: torch.clamp(x, 0.0),
    "clip": lambda x: x.clip(0, None),
    "clamp_min": lambda x: x.clamp_min(0),
    "clamp_min in place": lambda x: torch.clamp_min_(x, min=0),
    "functional threshold": lambda x: F.threshold(x, 0, 0),
}
OTHERS = {
    "relu6": (nn.ReLU6(), F.relu6),
    "hardtanh": (nn.Hardtanh(), F.hardtanh),
    "leaky_relu": (nn.LeakyReLU(0.1), lambda x: F.leaky_relu(x, 0.1)),
    "elu": (nn.ELU(), lambda x: F.elu(x, inplace=True)),
    "gelu": (nn.GELU(), F.gelu),
    "silu": (nn.SiLU(), F.silu),
    "sigmoid": (nn.Sigmoid(), torch.sigmoid, lambda x: x.sigmoid(), lambda x: x.sigmoid_(), torch.special.expit),
    "tanh": (nn.Tanh(), torch.tanh, lambda x: x.tanh()),
    "softplus": (nn.Softplus(), F.softplus),
    "clamp": (lambda x: x.clamp(0, 1), lambda x: torch.clamp(x, min=0, max=1), lambda x: x.clamp(min=0.5)),
    "threshold": (nn.Threshold(0.1, 0), lambda x: F.threshold(x, 0.0, 1.0)),
}
FORMS = [(RELU, f) for f in RELUS.values()] + [(name, f) for name, forms in OTHERS.items() for f in forms]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_spelling_has_one_name(name, form):
    graph = fx.symbolic_trace(nn.Sequential(form) if isinstance(form, nn.Module) else lambda x: form(x))
    modules = dict(graph.named_modules())
    assert [activation(node, modules) for node in graph.graph.nodes if node.op.startswith("call")] == [name]


def test_what_is_called_a_relu_is_one():
    x = torch.linspace(-8, 8, 101)
    for form in RELUS.values():
        assert torch.equal(form(x.clone()), torch.relu(x))
    for forms in OTHERS.values():
        assert all(not torch.equal(form(x.clone()), torch.relu(x)) for form in forms)


def test_all_of_torchs_activations_are_in_the_table():
    """But those that look at more than one value (softmax, attention, gated units)."""
    known = python.getmembers(nn.modules.activation, python.isclass)
    theirs = {kind for _, kind in known if kind.__module__ == nn.modules.activation.__name__}
    assert {kind.__name__ for kind in theirs - set(MODULES)} == {
        *("GLU", "MultiheadAttention", "Softmin", "Softmax", "Softmax2d", "LogSoftmax")
    }
    assert {F.relu6, F.hardtanh_, torch.tanh_, torch.Tensor.relu, "sigmoid_", F.softplus} <= set(CALLS)


THREE = (nn.ReLU(), F.relu, lambda x: x.clamp(min=0))


def test_quantised_activations_take_the_place_of_every_relu():
    torch.manual_seed(0)
    ours, plain = qcfs(network(*THREE), QCFSOptions()), qcfs(network(nn.ReLU(), nn.ReLU(), nn.ReLU()), QCFSOptions())
    x = torch.randn(8, 2, 6, 6)
    for net in (ours, plain):
        net.prepare(x)
    found = [module for module in ours.modules() if isinstance(module, QCFS)]
    assert len(found) == 3
    torch.testing.assert_close(ours(x), plain(x))
    torch.testing.assert_close(ours.stages(x)[0].flatten(1), plain(x))
    frames = torch.stack([x, x.flip(3)], 1)
    torch.testing.assert_close(ours(frames), (ours(x) + ours(x.flip(3))) / 2)
    ours.train()(x).square().sum().backward()
    assert all(module.threshold.grad.abs().sum() > 0 for module in found)
    quantised = [row["verdict"] for row in ours.verdicts if row["verdict"].startswith("quantised")]
    assert quantised == ["quantised activation of 4 levels"] * 3
    inspect(ours.eval(), nn.Linear(108, 2)).require()


def test_functional_pools_become_averages_too():
    layers = [nn.Sequential(nn.Conv2d(2, 3, 3), Pooled())]
    ours = qcfs(StaticBackbone((2, 8, 8), layers, nn.Flatten()), QCFSOptions())
    pools = [module for module in ours.modules() if isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d)]
    assert [row["verdict"] for row in ours.verdicts].count("average pooling") == len(pools) == 2


class Pooled(nn.Module):
    def forward(self, x):
        return F.adaptive_max_pool2d(F.max_pool2d(F.relu(x), 2), 2)


@pytest.mark.parametrize("form", [F.relu, F.relu6, nn.Hardtanh(), torch.sigmoid, lambda x: x.clamp(0, 1), THREE[2]])
def test_neurons_take_the_place_of_every_activation(form):
    ours = spiking(network(nn.ReLU(), form), SpikingOptions(steps=2))
    assert len(ours.neurons()) == 2 == sum(isinstance(module, SpikingActivation) for module in ours.modules())
    assert [row["verdict"] for row in ours.verdicts].count("spiking neuron") == 2


class Gated(nn.Module):
    """A squeeze-and-excitation block."""

    def __init__(self):
        super().__init__()
        self.squeeze, self.excite = nn.Linear(3, 3), nn.Sigmoid()

    def forward(self, x):
        return x * self.excite(self.squeeze(x.mean((2, 3)))).view(-1, 3, 1, 1)


def test_a_gate_stays_analog_and_is_named():
    net = StaticBackbone((2, 6, 6), [Written(nn.ReLU()), Gated()], nn.Flatten()).eval()
    ours = spiking(net, SpikingOptions(steps=2))
    assert len(ours.neurons()) == 1
    rows = {row["layer"]: row["verdict"] for row in ours.verdicts}
    assert rows["body.1.excite"] == "kept analog: sigmoid scales another value"
    assert rows["body.0.convs.0"] == "kept (linear)" and rows["body.0.modules_used.0"] == "spiking neuron"
    kept = {row["layer"]: row["verdict"] for row in qcfs(net, QCFSOptions()).verdicts}
    assert kept["body.1.excite"] == "kept analog: quantised activations stand for ReLUs, not for sigmoid"


def test_what_divides_is_a_gate():
    graph = fx.symbolic_trace(lambda x: x / x.sum(1).clamp(min=1e-6).unsqueeze(1))
    (clamp,) = (node for node in graph.graph.nodes if node.target == "clamp")
    assert is_gate(clamp)
