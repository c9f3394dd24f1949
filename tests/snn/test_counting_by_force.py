"""Operations by brute force: every layer is watched, and what it receives looked up weight by weight.

An operation is a value that is not zero, at a layer that spikes reach, times a weight of it that is not zero. Padding,
strides and groups are plain index arithmetic here; nothing is differentiated, and no convolution is run to count.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.nets.folding import trace
from engram.snn.graph.pooling import running
from engram.snn.graph.rewriting import normal_form
from engram.snn.graph.timed import TimeFolded
from engram.snn.measures.neurobench import Workload
from engram.snn.neurons.integrate_fire import IntegrateFire
from engram.snn.simulation.counting import Tally, macs, relay, synapses
from engram.snn.training.adapter import spiking
from engram.snn.training.options import SpikingOptions
from engram.snn.training.survey import Survey

SHAPE, STEPS, IMAGES = (2, 6, 6), 3, 4
PADDING = {"zeros": "constant", "circular": "wrap", "reflect": "reflect", "replicate": "edge"}


def weights_reached(layer, shape):
    """[C, H, W] or [features]: at how many places a weight that is not zero takes each input, by walking over them."""
    if isinstance(layer, nn.Linear):
        return (layer.weight != 0).sum(0).double()
    (channels, height, width), (p, q) = shape, layer.padding
    places = np.arange(height * width).reshape(height, width)
    fill = {"constant_values": -1} if layer.padding_mode == "zeros" else {}
    places = np.pad(places, ((p, p), (q, q)), PADDING[layer.padding_mode], **fill)
    found = torch.zeros(channels, height * width, dtype=torch.float64)
    (r, s), (d, e), weight = layer.stride, layer.dilation, layer.weight
    rows = (places.shape[0] - d * (weight.shape[2] - 1) - 1) // r + 1
    columns = (places.shape[1] - e * (weight.shape[3] - 1) - 1) // s + 1
    per = layer.out_channels // layer.groups
    for o, c, i, j in (weight != 0).nonzero().tolist():
        taken = places[i * d :: r, j * e :: s][:rows, :columns].ravel()
        counts = np.bincount(taken[taken >= 0], minlength=height * width)
        found[o // per * weight.shape[1] + c] += torch.from_numpy(counts)
    return found.view(channels, height, width)


class Tap(nn.Identity):
    """Spikes on their way into a sum that no weight is part of."""

    leaf = True


class Watched:
    """Counts while it is entered: what layers behind neurons receive, and what passes a tap."""

    def __init__(self, graph, batch):
        self.graph, self.batch, self.operations, self.constant = graph, batch, 0.0, 0.0

    def receive(self, module, args):
        x = args[0]
        if isinstance(module, Tap):
            self.operations += int((x != 0).sum())
            return
        shape = x.shape[1:] if isinstance(module, nn.Conv2d) else x.shape[-1:]
        found = float(((x != 0).reshape(-1, *shape) * weights_reached(module, shape)).sum())
        if len(x) == STEPS * self.batch:
            self.operations += found
        else:
            self.constant += found

    def __enter__(self):
        watched = [module for module in self.graph.modules() if isinstance(module, nn.Conv2d | nn.Linear | Tap)]
        self.hooks = [module.register_forward_pre_hook(self.receive) for module in watched]
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


class Tallied(TimeFolded):
    """Runs a graph and tallies its neurons and relays."""

    def __init__(self, graph, tally):
        super().__init__(graph, STEPS, False)
        self.tally = tally

    def run_node(self, n):
        out = super().run_node(n)
        for name in {relay(n), str(n.target)} & set(self.tally.fan_out):
            self.tally.add(name, self.in_time(n, out) != 0)
        return out


class Net(nn.Module):
    """A network in a row, but for a few that say otherwise."""

    in_shape = SHAPE

    def __init__(self, **layers):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
        for name, layer in layers.items():
            self.add_module(name, layer)

    def body(self, x):
        for name, layer in self.named_children():
            x = x if name in ("first", "last") else layer(x)
        return x

    def features(self, x):
        return self.last(self.body(self.first(x)).flatten(1)) if hasattr(self, "last") else self.tail(x)

    def stages(self, x):
        return [self.first(x)]

    def tail(self, x):
        return self.body(self.first(x)).flatten(1)


class Residual(Net):
    def body(self, x):
        return self.act(self.conv(x) + self.tap(x))


class Gate(Net):
    """x times a sigmoid of what a layer makes of x."""

    def body(self, x):
        return self.act(self.conv(x * torch.sigmoid(self.gate(x))))


class Squeezed(Net):
    def body(self, x):
        return self.act(self.conv(self.conv0(x) * torch.sigmoid(self.gate(self.conv0(x).mean((2, 3), keepdim=True)))))


class Concatenated(Net):
    def features(self, x):
        return self.body(x).flatten(1)

    def body(self, x):
        s = self.first(x)
        return self.act(self.conv(torch.cat([s, x, torch.clamp(self.other(s), -0.5, 0.5)], 1)))


class BesideConstants(Net):
    def features(self, x):
        return self.act(self.conv(self.tap(self.first(x)) + self.stem(x))).flatten(1)


class Halves(Net):
    """Channels taken apart, one half of them pooled by a function, moved about, and put together again."""

    def body(self, x):
        a, b = self.conv(x).chunk(2, 1)
        low, high = torch.max(b.flatten(2), dim=2, keepdim=True)[0], a.mean(dim=(2, 3), keepdim=True)
        return self.last_conv(torch.cat([torch.clamp(low.unsqueeze(3), 0, 1), 0.5 * high.permute(0, 1, 3, 2)], dim=1))


def conv(cin=4, cout=4, kernel=3, **how):
    return nn.Conv2d(cin, cout, kernel, **{"padding": 1, **how})


def relu():
    return nn.ReLU()


NETS = {
    **{f"padding {mode}": lambda mode=mode: Net(a=conv(padding_mode=mode), b=relu()) for mode in PADDING},
    **{
        f"wide {mode}": lambda mode=mode: Net(a=conv(kernel=5, padding=(2, 3), padding_mode=mode), b=relu())
        for mode in PADDING
    },
    "stride": lambda: Net(a=conv(stride=2), b=relu(), c=conv(stride=(1, 2), kernel=2), d=relu()),
    "groups and dilation": lambda: Net(a=conv(cout=8, groups=2, dilation=2), b=relu()),
    "depthwise, then pointwise": lambda: Net(a=conv(groups=4), b=conv(cout=6, kernel=1, padding=0), c=relu()),
    "linear": lambda: Net(f=nn.Flatten(), a=nn.Linear(144, 7), b=relu(), c=nn.Linear(7, 5), d=relu()),
    "max pool of spikes": lambda: Net(p=nn.MaxPool2d(2), a=conv(), b=relu()),
    "max pool that overlaps": lambda: Net(p=nn.MaxPool2d(3, 2, 1), a=conv(), b=relu(), q=nn.AdaptiveMaxPool2d(2)),
    "max pool of drives": lambda: Net(a=conv(), p=nn.MaxPool2d(2), b=relu()),
    "hardtanh of spikes": lambda: Net(h=nn.Hardtanh(), a=conv(), b=relu()),
    "hardtanh of drives": lambda: Net(a=conv(), h=nn.Hardtanh(-0.25, 0.25), b=conv(), c=relu()),
    "hardtanh at the end": lambda: Net(a=conv(), h=nn.Hardtanh()),
    "sigmoid": lambda: Net(a=conv(), h=nn.Sigmoid(), b=conv()),
    "group normalisation": lambda: Net(a=conv(), n=nn.GroupNorm(2, 4), b=conv(), c=relu()),
    "batch normalisation": lambda: Net(a=conv(), n=nn.BatchNorm2d(4), b=relu(), c=conv(), d=relu()),
    "residual": lambda: Residual(conv=conv(), act=relu(), tap=Tap()),
    "gate": lambda: Gate(conv=conv(), gate=conv(cout=1, kernel=1, padding=0), act=relu()),
    "squeeze and excitation": lambda: Squeezed(conv0=conv(), conv=conv(), gate=conv(kernel=1, padding=0), act=relu()),
    "chunks, clamps and maxima": lambda: Halves(conv=conv(), last_conv=conv(kernel=1, padding=0)),
    "concatenation": lambda: Concatenated(other=conv(), conv=conv(cin=10), act=relu()),
    "beside constants": lambda: BesideConstants(
        stem=nn.Sequential(conv(cin=2), nn.Hardtanh(0, 1)), conv=conv(), act=relu(), tap=Tap()
    ),
}


def made(name, seed=0):
    """A network with random weights, a third of them zero, that fires."""
    torch.manual_seed(seed)
    net = NETS[name]().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * (torch.rand_like(parameter) > 1 / 3))
    return net


def converted(net):
    return with_neurons(trace(net))


def with_neurons(graph):
    for name, module in list(graph.named_modules()):
        if isinstance(module, nn.ReLU):
            graph.set_submodule(name, IntegrateFire(torch.ones(1), torch.zeros(1, dtype=torch.bool)))
        elif isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d):
            graph.set_submodule(name, running(module))
    return graph


def head_of(graph, images):
    features = TimeFolded(graph, STEPS, False).run(images)
    head = nn.Linear(features.shape[1], 3)
    head.weight.data[:, ::3] = 0
    return head


@torch.no_grad()
@pytest.mark.parametrize("name", NETS)
def test_operations_are_values_times_weights(name):
    graph, images = converted(made(name)), torch.randn(IMAGES, *SHAPE)
    head = head_of(graph, images)
    found = synapses(graph, head, SHAPE)
    tally = Tally(found.fan_out, [STEPS])
    with Watched(graph, IMAGES) as watched:
        watched.receive(head, (Tallied(graph, tally).run(images),))
    assert found.relays <= tally.seen
    assert float(tally.operations.sum()) == watched.operations > 0
    assert found.analog_macs == watched.constant / IMAGES > 0  # no pixel of these images is zero


@torch.no_grad()
@pytest.mark.parametrize("name", NETS)
def test_macs_are_all_weights_at_all_places(name):
    graph, images = trace(made(name)), torch.randn(1, *SHAPE)
    head = nn.Linear(graph(images).shape[1], 3)
    counted, total = macs(graph, head, SHAPE), 0.0

    def receive(module, args):
        nonlocal total
        shape = args[0].shape[1:] if isinstance(module, nn.Conv2d) else args[0].shape[-1:]
        total += float(weights_reached(module, shape).sum())

    for layer in (*graph.modules(), head):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_pre_hook(receive)
    head(graph(images))
    assert counted == total


POOLS = {
    "average": lambda: nn.AvgPool2d(2),
    "average, overlapping": lambda: nn.AvgPool2d(3, 2, 1),
    "average, gaps": lambda: nn.AvgPool2d(2, 3),
    "average, one more": lambda: nn.AvgPool2d(4, ceil_mode=True),
    "adaptive": lambda: nn.AdaptiveAvgPool2d(4),
    "two in a row": lambda: nn.Sequential(nn.AvgPool2d((2, 1)), nn.AdaptiveAvgPool2d(2)),
}


@torch.no_grad()
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("mode", PADDING)
def test_every_spike_under_an_average_pool_counts(pool, mode):
    """Spikes one by one: what a layer receives of each of them, times the weights."""
    torch.manual_seed(0)
    layer = conv(padding_mode=mode)
    layer.weight.data *= torch.rand_like(layer.weight) > 1 / 3
    net = Net(p=POOLS[pool](), a=layer, b=relu()).eval()
    found = synapses(converted(net), nn.Linear(net.features(torch.zeros(1, *SHAPE)).shape[1], 3), SHAPE)
    received = net.p(torch.eye(4 * 36).view(-1, 4, 6, 6)) != 0
    reached = (received * weights_reached(layer, received.shape[1:])).sum((1, 2, 3))
    assert torch.equal(found.fan_out["first.1"], reached.view(4, 6, 6))


@torch.no_grad()
@pytest.mark.parametrize("mode", PADDING)
def test_neurobench_counts_every_padding_mode(mode):
    torch.manual_seed(0)
    net, x = (
        nn.Sequential(conv(2, 4, padding_mode=mode), conv(kernel=5, padding=2, padding_mode=mode)),
        torch.randn(3, *SHAPE),
    )
    net[1].weight.data *= torch.rand_like(net[1].weight) > 1 / 3
    with Workload(net) as work:
        net(x)
    layers = [weights_reached(layer, (layer.in_channels, 6, 6)).sum() for layer in net]
    assert work.effective == 3 * sum(layers)  # no value is zero
    dense = 36 * (2 * 4 * 9 + 4 * 4 * 25)
    borders = 4 * 2 * (36 * 9 - 16**2) + 16 * (36 * 25 - 24**2)  # of what a padding with zeros makes
    assert work.row(3)["dense_operations"] == dense - (borders if mode == "zeros" else 0)


@pytest.mark.parametrize(
    ("mode", "analog", "reached"), [("zeros", 20_808, 55_488), *[(mode, 23_328, 62_208) for mode in list(PADDING)[1:]]]
)
def test_padding_modes_by_their_closed_form(mode, analog, reached):
    net = Net(a=conv(6, 8, padding_mode=mode), b=relu())
    net.in_shape, net.first = (3, 12, 12), nn.Sequential(conv(3, 6, padding_mode=mode), relu())
    found = synapses(converted(net.eval()), nn.Linear(8 * 144, 1), (3, 12, 12))
    assert (found.analog_macs, int(found.fan_out["first.1"].sum())) == (analog, reached)
    assert int(found.input_fan_out.sum()) == analog


# --- the same network, trained ----------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", ["max pool of spikes", "max pool of drives", "residual", "depthwise, then pointwise"])
def test_a_trained_network_counts_as_a_converted_one(classifier_of, name):
    """One counter: by the same force, in a network of `snn.spiking`."""
    net = made(name)
    net.feature_dim, net.stage_channels = net.features(torch.zeros(1, *SHAPE)).shape[1], (4,)
    model = classifier_of(spiking(net, SpikingOptions(steps=STEPS, neuron="if")))
    survey, images = Survey(model, STEPS), torch.rand(IMAGES, *SHAPE)
    graph = model.backbone.graph
    with Watched(graph, IMAGES) as watched:
        watched.receive(model.head, (model.backbone.forward_steps(images).flatten(0, 1),))
    survey.add(images, torch.zeros(IMAGES, dtype=torch.int64))
    assert survey.curve()[-1]["synaptic_operations"] == watched.operations / IMAGES > 0
    assert survey.structure.analog_macs == watched.constant / IMAGES


class ByHand(nn.Module):
    """The same layers twice: as modules, and as functions of parameters."""

    in_shape = SHAPE

    def __init__(self, functional):
        super().__init__()
        self.first, self.conv, self.linear = conv(2, 4), conv(padding=1, stride=2), nn.Linear(36, 5)
        self.functional = functional
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)).round()

    def features(self, x):
        x = torch.relu(self.first(x))
        if not self.functional:
            return self.linear(self.conv(x).flatten(1)) @ torch.ones(5, 5)
        y = F.conv2d(x, self.conv.weight, bias=self.conv.bias, stride=2, padding=1)
        return F.linear(y.view(y.shape[0], -1), self.linear.weight, self.linear.bias) @ torch.ones(5, 5)


def test_layers_that_are_functions_count_as_modules_do():
    nets = [normal_form(trace(ByHand(functional))) for functional in (False, True)]
    modules, functions = (synapses(with_neurons(graph), nn.Linear(5, 3), SHAPE) for graph in nets)
    assert (modules.macs, modules.analog_macs) == (functions.macs, functions.analog_macs)
    assert [fan_out.sum() for fan_out in modules.fan_out.values()] == [f.sum() for f in functions.fan_out.values()]
