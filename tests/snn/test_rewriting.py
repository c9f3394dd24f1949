import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.folding import stage_names, trace
from engram.backbone.registry import Registry
from engram.snn.graph.operations import MAX_POOLS
from engram.snn.graph.pooling import RunningMaxPool
from engram.snn.graph.rewriting import analog_front, normal_form
from engram.snn.graph.timed import TimeFolded
from engram.snn.neurons.quantised import QCFS
from engram.snn.neurons.timed import TimedNeurons


class IntegrateAndFire(TimedNeurons):
    """Integrate-and-fire with a half-threshold start, a step at a time; independent of the ones under conversion."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, drive):
        v, out = torch.full_like(drive[0], self.threshold / 2), []
        for x in drive:
            v = v + x
            out.append((v >= self.threshold).to(x.dtype) * self.threshold)
            v = v - out[-1]
        return torch.stack(out)


class EveryStep(nn.Module):
    """What a max pool is to a converter that does not know time: the maximum of every step."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        return F.max_pool2d(x, self.pool.kernel_size, self.pool.stride, self.pool.padding)


class Block(nn.Module):
    """Convolutions with one shared in-place ReLU, functions where others have modules, and a concatenation."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(2 * channels)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        y = self.act(self.conv1(x))
        y = self.act(self.conv2(y))
        z = F.relu(self.conv3(x), inplace=True)
        z = F.dropout(z, 0.1, self.training)
        return self.drop(self.norm(torch.cat([y, z], 1)))


class Overwriting(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        x = self.conv(x)
        before = x * 0.5
        return x.relu_() + before + x  # the last x is what relu_ made of it


def seeded(net, seed=0):
    """Random weights and statistics, so that no BatchNorm is trivial."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            scale = module.weight[0].numel() ** -0.5
            module.weight.data = scale * torch.randn(module.weight.shape, generator=generator)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean.data = 0.3 * torch.randn(shape, generator=generator)
            module.running_var.data = 0.5 + torch.rand(shape, generator=generator)
            module.weight.data = torch.randn(shape, generator=generator)
            module.bias.data = 0.3 * torch.randn(shape, generator=generator)
    return net.eval()


def network(*layers, tail=nn.Flatten):
    return seeded(StaticBackbone((2, 8, 8), [nn.Sequential(*layers)], tail()))


def conv(cin=2, cout=4):
    return nn.Conv2d(cin, cout, 3, padding=1)


NETWORKS = {
    "functional and shared ReLU, concatenation, BatchNorm after it": lambda: [conv(), nn.ReLU(), Block(4)],
    "max pooling behind ReLU": lambda: [conv(), nn.ReLU(), nn.MaxPool2d(2), conv(4), nn.ReLU()],
    "max pooling before BatchNorm": lambda: [conv(), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU()],
    "pools of pools": lambda: [conv(), nn.ReLU(), nn.Identity(), nn.MaxPool2d(3, 1), nn.MaxPool2d(2), nn.ReLU()],
    "QCFS before max pooling": lambda: [conv(), QCFS(4, 4, 0.7), nn.MaxPool2d(2), conv(4), QCFS(1, 4, 0.7)],
    "BatchNorm on features": lambda: [conv(), nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.BatchNorm1d(8)],
    "BatchNorm without factors": lambda: [conv(), nn.ReLU(), Plain(4), nn.ReLU()],
    "overwritten values": lambda: [Overwriting(), nn.ReLU()],
}


class Plain(nn.BatchNorm2d):
    __module__ = "torch.nn"  # a leaf of the graph, as torch's own

    def __init__(self, channels):
        super().__init__(channels)
        self.weight = self.bias = None


@pytest.mark.parametrize("case", NETWORKS)
@torch.no_grad()
def test_the_normal_form_computes_the_same(case):
    layers = NETWORKS[case]()
    if case == "BatchNorm without factors":
        layers[2].running_mean.fill_(0.2)
        graph = trace(StaticBackbone((2, 8, 8), [nn.Sequential(*layers)], nn.Flatten()).eval())
    else:
        features = "features" in case
        graph = trace(features_network(layers) if features else network(*layers))
    x = torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = graph(x)
    normal = normal_form(graph)
    torch.testing.assert_close(normal(x), expected, rtol=1e-5, atol=1e-5)
    calls = [node for node in normal.graph.nodes if node.op == "call_module"]
    modules = [normal.get_submodule(str(node.target)) for node in calls]
    activations = [module for module in modules if isinstance(module, nn.ReLU | QCFS)]
    assert len({id(module) for module in activations}) == len(activations) > 0
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.Dropout | nn.Identity) for module in modules)
    assert all(isinstance(module, RunningMaxPool) for module in modules if isinstance(module, MAX_POOLS))
    assert not any(node.target in (F.relu, "relu_", F.max_pool2d, F.dropout) for node in normal.graph.nodes)
    torch.testing.assert_close(graph(x), expected)  # a copy: the graph it came from is as it was


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("name", ["vgg-tiny", "resnet-tiny", "airnet", "lenet5"])
@torch.no_grad()
def test_the_normal_form_of_registered_networks(name, pooling):
    registry = Registry.discover()
    options = registry.options("backbones", name)(pooling=pooling)
    net = seeded(registry.load("backbones", name)((3, 16, 16), options))
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(normal_form(trace(net))(x), net(x), rtol=1e-4, atol=1e-5)


def features_network(layers):
    return seeded(StaticBackbone((2, 8, 8), [nn.Identity()], nn.Sequential(*layers)))


def order(graph):
    """The kinds of modules a graph runs, without the tail."""
    calls = [node for node in graph.graph.nodes if node.op == "call_module"]
    return [type(graph.get_submodule(str(node.target))).__name__ for node in calls][:-1]


def test_max_pools_stand_before_neurons_where_nothing_else_listens():
    assert order(normal_form(trace(network(conv(), nn.ReLU(), nn.MaxPool2d(2))))) == [
        "Conv2d",
        "RunningMaxPool2d",
        "ReLU",
    ]

    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.pool = conv(), nn.ReLU(), nn.AdaptiveMaxPool2d(8)

        def forward(self, x):
            x = self.act(self.conv(x))
            return self.pool(x) + x

    assert order(normal_form(trace(network(Fork())))) == ["Conv2d", "ReLU", "RunningAdaptiveMaxPool2d"]


@torch.no_grad()
def test_batchnorm_folds_through_a_max_pool_if_its_factors_are_positive():
    net = network(conv(), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU())
    assert order(normal_form(trace(net))) == ["Conv2d", "RunningMaxPool2d", "Conv2d", "ReLU"]
    net.body[0][2].weight.abs_()
    normal, x = normal_form(trace(net)), torch.randn(3, 2, 8, 8)
    assert order(normal) == ["Conv2d", "RunningMaxPool2d", "ReLU"]
    torch.testing.assert_close(normal(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["ReLU", "pool"])
@torch.no_grad()
def test_values_of_stages_keep_their_names(case):
    """A stage may end between a ReLU and its pool, or between a pool and its BatchNorm."""
    layers = {"ReLU": [[conv(), nn.ReLU()], [nn.MaxPool2d(2)]]}
    layers["pool"] = [[conv(), nn.MaxPool2d(2), nn.Dropout(0.1)], [nn.BatchNorm2d(4), nn.ReLU()]]
    net = StaticBackbone((2, 8, 8), [nn.Sequential(*stage) for stage in layers[case]], nn.Flatten()).eval()
    traced, wanted = trace(net), stage_names(net)
    nodes = {node.name: node for node in traced.graph.nodes}
    normal, x = normal_form(traced, wanted), torch.randn(3, 2, 8, 8)
    left = {node.name: node for node in normal.graph.nodes}
    found = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            found[n.name] = super().run_node(n)
            return found[n.name]

    Watch(normal).run(x)
    for name, value in zip(wanted, net.stages(x), strict=True):
        node = nodes[name]
        while node.name not in left:
            node = node.all_input_nodes[0]
        torch.testing.assert_close(found[node.name], value, rtol=1e-5, atol=1e-5)


def spiking_error(graph, x, steps, pools=None):
    """How far the mean over time of a converted network is from its analog one, relative to the largest feature."""
    largest = {}
    for name, module in graph.named_modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(
                lambda module, inputs, out, name=name: largest.update({name: float(out.max())})
            )
    exact = graph(x)
    for name, module in list(graph.named_modules()):
        if name in largest:
            graph.set_submodule(name, IntegrateAndFire(largest[name]))
        if isinstance(module, RunningMaxPool) and pools is not None:
            graph.set_submodule(name, pools(module))
    mean = TimeFolded(graph, steps, frames=False).run(x).unflatten(0, (steps, -1)).mean(0)
    return float((mean - exact).abs().mean() / exact.abs().max())


@pytest.mark.parametrize("case", [case for case in NETWORKS if "QCFS" not in case and "without" not in case])
@torch.no_grad()
def test_spikes_approach_the_analog_network(case):
    layers = [conv(), nn.ReLU(), conv(4, 2), *NETWORKS[case]()]  # everything in it is fed by spikes
    graph = normal_form(trace(features_network(layers) if "features" in case else network(*layers)))
    x = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    errors = [spiking_error(copy.deepcopy(graph), x, steps) for steps in (16, 64, 256)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.02


@torch.no_grad()
def test_a_maximum_of_every_step_stays_wrong_where_the_running_one_converges():
    registry = Registry.discover()
    options = registry.options("backbones", "resnet-tiny")(pooling="max")
    net = seeded(registry.load("backbones", "resnet-tiny")((3, 16, 16), options))
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    ours = [spiking_error(normal_form(trace(net)), x, steps) for steps in (32, 256)]
    theirs = [spiking_error(normal_form(trace(net)), x, steps, EveryStep) for steps in (32, 256)]
    assert theirs[0] > 2 * ours[0]
    assert theirs[1] > 10 * ours[1]
    assert ours[1] < 0.25 * ours[0]


def mixed(*layers):
    return normal_form(trace(network(*layers)))


def test_the_analog_front():
    plain = mixed(conv(), nn.ReLU(), nn.MaxPool2d(2), conv(4, 4), nn.ReLU(), conv(4, 4), nn.ReLU())
    names = [f"body.0.{k}" for k in (1, 4, 6)]
    assert analog_front(plain, "none") == analog_front(plain, "auto") == analog_front(plain, 0) == frozenset()
    assert analog_front(plain, 1) == {names[0]}
    assert analog_front(plain, "2") == set(names[:2])
    for wrong, words in ((3, "shorter than the network"), ("some", "none, auto or a number"), (-1, "at least 0")):
        with pytest.raises(UserError, match=words):
            analog_front(plain, wrong)


def test_the_automatic_front_ends_behind_the_last_thing_that_cannot_be_converted():
    net = mixed(conv(), nn.ReLU(), conv(4, 4), nn.ReLU(), nn.GroupNorm(2, 4), nn.LeakyReLU(), conv(4, 4), nn.ReLU())
    assert analog_front(net, "auto") == {"body.0.1", "body.0.3"}
    with pytest.raises(UserError, match="shorter than the network, which has 1 activations"):
        analog_front(mixed(conv(), nn.ReLU(), nn.GELU()), "auto")


def test_a_parallel_path_may_spike():
    """What does not lead to the GELU becomes spiking, although it runs before it."""

    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.last = conv(), conv(), nn.ReLU()

        def forward(self, x):
            left = F.relu(self.left(x))
            return self.last(left + F.gelu(self.right(x)))

    assert analog_front(mixed(Fork()), "auto") == frozenset()


@torch.no_grad()
def test_an_analog_front_runs_once():
    layers = [conv(), nn.ReLU(), nn.GroupNorm(2, 4), nn.GELU(), nn.MaxPool2d(2), conv(4, 4), nn.ReLU(), conv(4, 4)]
    graph = mixed(*layers)
    front = analog_front(graph, "auto")
    graph.set_submodule("body.0.6", IntegrateAndFire(1.0))
    seen = {}
    for name in ("body.0.2", "body.0.5", "body.0.7"):
        graph.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: len(output)})
        )
    TimeFolded(graph, 10, frames=False).run(torch.randn(3, 2, 8, 8))
    assert front == {"body.0.1"}
    assert seen == {"body.0.2": 3, "body.0.5": 3, "body.0.7": 30}
