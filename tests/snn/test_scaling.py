"""Absorbing thresholds must change no output, whatever the network's shape."""

import copy

import pytest
import torch
from torch import fx, nn

from engram.snn.conversion.convert import lower
from engram.snn.conversion.scaling import absorb


class Net(nn.Module):
    """Give `features` a body from a function of the modules."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.parts, self.forward_with = nn.ModuleDict(modules), forward

    def forward(self, x):
        return self.forward_with(self.parts, x)


def conv(cin, cout, **options):
    return nn.Conv2d(cin, cout, 3, padding=1, **options)


def sequential(m, x):
    return m["fc"](m["flat"](m["pool"](m["b"](m["c2"](m["a"](m["c1"](x)))))))


def residual(m, x):
    x = m["a"](m["c1"](x))
    return m["b"](m["c2"](x) + x).mean((2, 3))


def two_neurons_meet(m, x):
    return (m["a"](m["c1"](x)) + m["b"](m["c2"](x))).flatten(1)


def concatenated(m, x):
    x = torch.cat([m["a"](m["c1"](x)), m["b"](m["c2"](x))], 1)
    return m["c"](m["c3"](x)).flatten(1)


def concatenated_before(m, x):
    return m["c"](torch.cat([m["c1"](x), x], 1)).flatten(1)


def preactivation(m, x):
    x = m["c1"](x)
    return (x + m["c2"](m["a"](x))).flatten(1)


def shared_layer(m, x):
    x = m["a"](m["c2"](m["start"](m["c1"](x))))
    return m["b"](m["c2"](x)).mean((2, 3))


def arithmetic(m, x):
    return m["b"](m["c2"](m["a"](m["c1"](x)) * 0.5 + 0.25)).view(x.size(0), -1)


def mean_over_channels(m, x):
    return m["a"](m["c1"](x)).mean(1).flatten(1)


def tokens(m, x):
    """A linear layer along the rows of a picture, and one along all of its pixels: neither takes channels."""
    x = m["b"](m["rows"](m["a"](m["c1"](x))))
    return m["c"](m["pixels"](x.flatten(2))).flatten(1)


def pooled_sequence(m, x):
    """On [B, C, L] these pool channels as well, and leave their number as it is."""
    x = m["a"](m["c1"](x)).flatten(2)
    return m["b"](m["average"](m["maximum"](x))).flatten(1)


def by_name(m, x):
    x = torch.cat(tensors=[m["a"](m["c1"](x)), x], axis=-3)
    return torch.mean(input=m["b"](m["c2"](0.5 * x)), axis=(-1, -2))


RELUS = {name: nn.ReLU() for name in ("a", "b", "c", "start")}
NETS = {
    "sequential": (
        sequential,
        {
            "c1": conv(2, 4),
            "c2": conv(4, 6, groups=2),
            "pool": nn.AvgPool2d(2),
            "flat": nn.Flatten(),
            "fc": nn.Linear(96, 3),
        },
        0,
    ),
    "residual": (residual, {"c1": conv(2, 4), "c2": conv(4, 4)}, 2),
    "two neurons meet": (two_neurons_meet, {"c1": conv(2, 4), "c2": conv(2, 4)}, 2),
    "concatenated": (concatenated, {"c1": conv(2, 4), "c2": conv(2, 3), "c3": conv(7, 5)}, 1),
    "concatenated before": (concatenated_before, {"c1": conv(2, 4)}, 2),
    "preactivation": (preactivation, {"c1": conv(2, 4), "c2": conv(4, 4)}, 1),
    "shared layer": (shared_layer, {"c1": conv(2, 4), "c2": conv(4, 4)}, 1),
    "arithmetic": (arithmetic, {"c1": conv(2, 4), "c2": conv(4, 4)}, 2),
    "tokens": (tokens, {"c1": conv(2, 8), "rows": nn.Linear(8, 8), "pixels": nn.Linear(64, 8)}, 5),
    "pooled sequence": (
        pooled_sequence,
        {"c1": conv(2, 8), "average": nn.AvgPool2d(3, 1, 1), "maximum": nn.MaxPool2d(3, 1, 1)},
        3,
    ),
    "by name": (by_name, {"c1": conv(2, 4), "c2": conv(6, 4)}, 1),
    "mean over channels": (mean_over_channels, {"c1": conv(2, 4)}, 1),
}


def made(name, exact):
    forward, modules, scales = NETS[name]
    net = exact(Net(forward, **copy.deepcopy(modules), **copy.deepcopy(RELUS)))
    graph = fx.symbolic_trace(net).requires_grad_(False)
    graph.delete_all_unused_submodules()
    channels = {}
    for key, module in graph.named_modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda m, i, o, key=key: channels.__setitem__(key, o.shape[1]))
    return graph, channels, scales


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_powers_of_two_change_no_bit_of_the_features_and_normalise_the_activations(name, exact, images):
    graph, channels, scales = made(name, exact)
    expected = graph(images)
    generator = torch.Generator().manual_seed(0)
    thresholds = {key: 2.0 ** torch.randint(-2, 3, (n,), generator=generator) for key, n in channels.items()}
    wanted = outputs(graph, channels, images)
    units = absorb(graph, thresholds, (2, 8, 8))
    assert torch.equal(graph(images), expected)
    for key, value in outputs(graph, channels, images).items():
        theta = thresholds[key].view(-1, *[1] * (value.ndim - 2))
        assert torch.equal(value * theta, wanted[key])
        (node,) = (node for node in graph.graph.nodes if node.target == key)
        assert torch.equal(units[node.name], thresholds[key])
    assert sum(node.op == "get_attr" for node in graph.graph.nodes) == scales


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_any_thresholds_change_the_features_by_rounding_alone(name, exact, images):
    graph, channels, _ = made(name, exact)
    expected = graph(images)
    absorb(graph, {key: torch.rand(n) + 0.1 for key, n in channels.items()}, (2, 8, 8))
    torch.testing.assert_close(graph(images), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_one_threshold_for_a_layer(residual_net, images):
    graph = lower(residual_net)
    expected = graph(images)
    names = [key for key, module in graph.named_modules() if isinstance(module, nn.ReLU)]
    absorb(graph, dict.fromkeys(names, torch.tensor([2.0])), (2, 8, 8))
    assert torch.equal(graph(images), expected)
    scales = [node for node in graph.graph.nodes if node.op == "get_attr"]
    assert len(scales) == 1  # equal thresholds leave the identity paths alone: only the features are scaled back


def outputs(graph, names, x):
    found = {}
    handles = [
        graph.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: found.__setitem__(name, o.clone()))
        for name in names
    ]
    graph(x)
    for handle in handles:
        handle.remove()
    return found
