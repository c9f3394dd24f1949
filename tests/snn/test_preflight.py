import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backbone.errors import UserError
from backbone.nets.blocks import StaticBackbone
from backbone.registry import Registry
from snn.preflight import inspect


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 1, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class InPlaceWithSkip(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(x) + x


def network(*layers):
    stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    return StaticBackbone((1, 4, 4), [stem, nn.Sequential(*layers)], nn.Flatten(), "full").eval()


SHARED = nn.ReLU()
REJECTED = {
    "F.relu": ([Lambda(F.relu)], "functional ReLU"),
    "torch.relu": ([Lambda(torch.relu)], "functional ReLU"),
    "Tensor.relu": ([Lambda(lambda x: x.relu())], "functional ReLU"),
    "Tensor.relu_": ([Lambda(lambda x: x.relu_())], "functional ReLU"),
    "max pooling": ([nn.MaxPool2d(2)], "--backbone.pooling avg"),
    "F.max_pool2d": ([Lambda(lambda x: F.max_pool2d(x, 2))], "--backbone.pooling avg"),
    "BatchNorm after ReLU": ([nn.BatchNorm2d(4)], "must directly follow a convolution"),
    "BatchNorm without statistics": (
        [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)],
        "must directly follow a convolution",
    ),
    "MultiheadAttention": ([nn.Flatten(2), Attention()], "attention"),
    "scaled_dot_product_attention": ([Lambda(lambda x: F.scaled_dot_product_attention(x, x, x))], "attention"),
    "softmax": ([Lambda(lambda x: x.softmax(-1))], "attention"),
    "nn.Softmax": ([nn.Softmax(-1)], "attention"),
    "GELU": ([nn.GELU()], "--backbone.activation relu"),
    "SiLU": ([nn.SiLU()], "--backbone.activation relu"),
    "LeakyReLU": ([nn.LeakyReLU()], "--backbone.activation relu"),
    "Sigmoid": ([nn.Sigmoid()], "--backbone.activation relu"),
    "ReLU6": ([nn.ReLU6()], "--backbone.activation relu"),
    "F.gelu": ([Lambda(F.gelu)], "--backbone.activation relu"),
    "LayerNorm": ([nn.LayerNorm((4, 4, 4))], "--backbone.normalisation batch"),
    "GroupNorm": ([nn.GroupNorm(2, 4)], "--backbone.normalisation batch"),
    "one ReLU used twice": ([nn.Conv2d(4, 4, 1), SHARED, nn.Conv2d(4, 4, 1), SHARED], "used 2 times"),
    "in-place ReLU beside a skip": ([nn.Conv2d(4, 4, 1), InPlaceWithSkip()], "inplace=False"),
    "control flow": ([Branching()], "branches on values"),
    "product of activations": ([Lambda(lambda x: x * x)], "not known to be linear"),
    "flattening the batch": ([Lambda(lambda x: x.flatten().view(-1, 64))], "not known to be linear"),
    "a batch size in the code": ([Lambda(lambda x: x.view(1, -1))], "not known to be linear"),
    "mean over images": ([Lambda(lambda x: x - x.mean(0))], "not known to be linear"),
    "functional convolution": ([Lambda(lambda x: F.conv2d(x, torch.ones(1, 4, 1, 1)))], "nn.Conv2d"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_what_cannot_be_converted_is_named_with_the_remedy(case):
    layers, remedy = REJECTED[case]
    preflight = inspect(network(*layers), nn.Linear(4, 2))
    with pytest.raises(UserError, match="every layer must be linear or a ReLU") as error:
        preflight.require()
    assert remedy in str(error.value)
    bad = [row for row in preflight.rows if str(row["verdict"]).startswith("cannot convert: ")]
    assert bad
    assert all(str(row["layer"]) in str(error.value) for row in bad)


def test_a_batchnorm_whose_convolution_feeds_two_layers_is_rejected():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            return self.norm(x) + x

    with pytest.raises(UserError, match=r"body.1.0.norm \(BatchNorm2d\)"):
        inspect(network(Fork()), nn.Linear(4, 2)).require()


def test_a_network_without_relu_is_rejected():
    net = StaticBackbone((1, 4, 4), [nn.Conv2d(1, 2, 3)], nn.Flatten(), "full")
    with pytest.raises(UserError, match="nothing would spike"):
        inspect(net, nn.Linear(8, 2)).require()


def test_a_head_that_is_not_linear_is_rejected():
    with pytest.raises(UserError, match=r"head \(Sequential\)"):
        inspect(network(nn.AvgPool2d(2)), nn.Sequential(nn.Linear(4, 2))).require()


ACCEPTED = [
    nn.AvgPool2d(2),
    nn.AdaptiveAvgPool2d(3),
    nn.Dropout(0.5),
    nn.ReLU(inplace=True),
    nn.Sequential(nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)),
    nn.Sequential(nn.Conv2d(4, 2, 3), nn.AvgPool2d(2), nn.BatchNorm2d(2)),
    nn.ZeroPad2d(1),
    Lambda(lambda x: x.mean((2, 3))),
    Lambda(lambda x: x.view(x.size(0), -1)),
    Lambda(lambda x: torch.flatten(x, 1)),
    Lambda(lambda x: torch.cat([x, x], 1)),
    Lambda(lambda x: F.avg_pool2d(x, 2) * 0.5),
]


@pytest.mark.parametrize("layer", ACCEPTED, ids=lambda layer: type(layer).__name__)
def test_what_can_be_converted_passes(layer):
    net = network(layer)
    inspect(net, nn.Linear(net.feature_dim, 2)).require()


def test_rows_say_what_becomes_of_every_layer():
    net = network(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1))
    assert [(row["layer"], row["verdict"]) for row in inspect(net, nn.Linear(16, 2)).rows] == [
        ("body.0.0", "kept (linear)"),
        ("body.0.1", "spiking neuron"),
        ("body.1.0", "kept (linear)"),
        ("body.1.1", "folded into body.1.0"),
        ("body.1.2", "spiking neuron"),
        ("body.1.3", "removed (does nothing in evaluation)"),
        ("tail", "kept (linear)"),
        ("head", "kept (linear)"),
    ]


@pytest.mark.parametrize("name", Registry.discover().names("backbones"))
def test_registered_networks_that_call_themselves_convertible_are(name):
    registry = Registry.discover()
    schema = registry.options("backbones", name)
    net = registry.load("backbones", name)((1, 16, 16), schema() if schema else None).eval()
    if net.convertible == "full":
        inspect(net, nn.Linear(net.feature_dim, 2)).require()
