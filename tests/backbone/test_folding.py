import pytest
import torch
from torch import nn

from engram.backbone.nets.blocks import PooledConv2d, StaticBackbone
from engram.backbone.nets.folding import Untraceable, fold_batchnorm, stage_names, trace, traced_with_stages

NAMES = ["mlp", "lenet5", "vgg-tiny", "vgg-small", "resnet-tiny", "airnet", "conv4", "resnet12"]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def norms(graph):
    return sum(isinstance(module, NORMS) for module in graph.modules())


def net(*layers, shape=(2, 8, 8)):
    return StaticBackbone(shape, [nn.Sequential(*layers)], nn.Flatten())


def check(module, left, shape=(2, 8, 8)):
    """Folding leaves ``left`` norms and the function as it was."""
    module = module.double().eval()
    x = torch.randn(4, *shape, dtype=torch.float64)
    graph = trace(module)
    folded = fold_batchnorm(graph)
    assert norms(folded) == left
    torch.testing.assert_close(folded(x), module(x))
    assert norms(graph) == norms(module)  # the original is another object
    torch.testing.assert_close(graph(x), module(x))


@pytest.mark.parametrize("pooling", ["avg", "max", "stride"])
@pytest.mark.parametrize("name", NAMES)
def test_every_network(backbone, randomise, name, pooling):
    options = {} if name == "mlp" else {"pooling": pooling}
    module = randomise(backbone(name, (2, 18, 21), normalisation="batch", width=0.25, **options))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    through_max = {"airnet": 3, "resnet-tiny": 2}.get(name, 0) if pooling == "max" else 0
    check(module, through_max, (2, 18, 21))


def test_without_gain_and_bias(randomise):
    check(randomise(net(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=False), nn.ReLU())), 0)


def test_one_dimensional_after_linear(randomise):
    check(randomise(net(nn.Flatten(), nn.Linear(128, 5, bias=False), nn.BatchNorm1d(5), nn.Unflatten(1, (5, 1, 1)))), 0)


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d(3, 1, padding=1, count_include_pad=False),
        nn.Sequential(nn.AvgPool2d(2), nn.AvgPool2d(2)),
    ],
)
def test_through_average_pooling(randomise, pool):
    check(randomise(net(nn.Conv2d(2, 3, 1), pool, nn.BatchNorm2d(3))), 0)


@pytest.mark.parametrize(
    "between", [nn.AvgPool2d(3, 1, padding=1), nn.AvgPool2d(2, divisor_override=3), nn.MaxPool2d(2), nn.ReLU()]
)
def test_not_through_what_is_not_linear_or_moves_constants(randomise, between):
    check(randomise(net(nn.Conv2d(2, 3, 1), between, nn.BatchNorm2d(3))), 1)


def test_not_first_and_not_twice(randomise):
    check(randomise(net(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3))), 1)


class TwoConsumers(nn.Module):
    def __init__(self, pooled):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.pool = nn.AvgPool2d(1) if pooled else None

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y if self.pool is None else self.pool(y)) + y


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        return self.norm(self.conv(self.conv(x)))


@pytest.mark.parametrize("block", [TwoConsumers(True), TwoConsumers(False), Reused()])
def test_not_into_a_layer_somebody_else_needs(randomise, block):
    check(randomise(net(block)), 1)


class SharedNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        return self.norm(self.b(self.norm(self.a(x))))


def test_one_norm_after_two_layers_goes_into_both(randomise):
    check(randomise(net(SharedNorm())), 0)


def test_a_norm_without_statistics_stays(randomise):
    module = net(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)).double().eval()
    graph, x = fold_batchnorm(trace(module)), torch.randn(4, 2, 8, 8, dtype=torch.float64)
    assert norms(graph) == 1
    torch.testing.assert_close(graph(x), module(x))


# --- tracing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_composed_layers_are_kept_whole_when_asked(backbone, name):
    module = backbone(name, (2, 18, 21), width=0.25).double().eval()
    whole, plain, x = trace(module, composed=True), trace(module), torch.randn(2, 2, 18, 21, dtype=torch.float64)
    torch.testing.assert_close(whole(x), module(x))
    torch.testing.assert_close(plain(x), module(x))
    count = sum(isinstance(layer, PooledConv2d) for layer in module.modules())
    assert sum(isinstance(layer, PooledConv2d) for layer in whole.modules()) == count
    assert not any(isinstance(layer, PooledConv2d) for layer in plain.modules())
    assert count == {"airnet": 3, "resnet-tiny": 2}.get(name, 0)
    assert {key for key, _ in whole.named_parameters()} <= {key for key, _ in module.named_parameters()}


@pytest.mark.parametrize("composed", [True, False])
@pytest.mark.parametrize("name", NAMES[1:])
def test_stages_are_nodes_of_the_graph(backbone, name, composed):
    module, x = backbone(name, (2, 18, 21), width=0.25).eval(), torch.randn(2, 2, 18, 21)
    graph, names, values = trace(module, composed), stage_names(module, composed), {}

    class Run(torch.fx.Interpreter):
        def run_node(self, n):
            values[n.name] = super().run_node(n)
            return values[n.name]

    Run(graph).run(x)
    stages = module.stages(x)
    assert len(names) == len(stages)
    for node, stage in zip(names, stages, strict=True):
        torch.testing.assert_close(values[node], stage)


class Branches(nn.Module):
    """Cannot be traced through."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


class Leaf(Branches):
    leaf = True


def test_a_leaf_is_one_node():
    graph = trace(net(nn.Conv2d(2, 3, 3), Leaf()))
    assert any(isinstance(module, Leaf) for module in graph.modules())
    with pytest.raises(Untraceable, match="its code branches on values of tensors"):
        trace(net(nn.Conv2d(2, 3, 3), Branches()))


class Small(nn.Module):
    """Without ``features(x)``: the contract does not ask for it."""

    in_shape = (1, 4, 4)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def stages(self, x):
        return [self.conv(x).relu()]

    def forward(self, x):
        return self.stages(x)[0].flatten(1)


class Looping(Small):
    def features(self, x):
        return torch.stack([self.conv(x[place]) for place in range(x.shape[0])])


class Leaving(Small):
    def features(self, x):
        return torch.from_numpy(x.numpy())


class Mistaken(Small):
    def features(self, x):
        return self.missing(x)


class Else(Small):
    def stages(self, x):
        return [self.conv(x) * 2.0]

    def forward(self, x):
        return self.conv(x).flatten(1)


class Unstaged(nn.Module):
    def features(self, x):
        return x.flatten(1)


HAPPENED = {
    Looping: r"needs the value of a tensor or of a size .*test_folding.py:\d+ \(return torch.stack.* as an integer\)",
    Leaving: r"needs the value of a tensor or of a size .*test_folding.py:\d+ \(return torch.from_numpy.*Proxy\)\)",
    Mistaken: r"raised an error while it was traced, at test_folding.py.*has no attribute 'missing'\); mend that",
    Else: r"stages\(x\) computes mul, which features\(x\) does not",
    Unstaged: r"it has no stages\(x\)",
}


@pytest.mark.parametrize("kind", HAPPENED)
def test_what_happened_while_a_network_was_traced_is_said(kind):
    with pytest.raises(Untraceable, match=HAPPENED[kind]) as error:
        traced_with_stages(kind())
    assert "branches" not in str(error.value)


def test_a_network_without_features_is_traced_from_its_forward():
    module, x = Small(), torch.randn(3, 1, 4, 4)
    graph, stages = traced_with_stages(module)
    torch.testing.assert_close(graph(x), module(x))
    assert stages == ["relu"]


class Asking(nn.Module):
    """Code that asks how many dimensions its images have."""

    in_shape = (1, 4, 4)

    def features(self, x):
        assert x.dim() == 4
        return x.flatten(1) if x.ndim == 4 else x.flatten(2)


def test_images_have_four_dimensions_while_they_are_traced():
    x = torch.randn(2, 1, 4, 4)
    assert torch.equal(trace(Asking())(x), x.flatten(1))
