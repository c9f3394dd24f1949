import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.registry import Registry
from engram.snn.conversion.preflight import inspect
from engram.snn.neurons.quantised import QCFS


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


def network(*layers):
    stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    return StaticBackbone((1, 4, 4), [stem, nn.Sequential(*layers)], nn.Flatten()).eval()


REJECTED = {
    "max pooling with indices": ([Lambda(lambda x: F.max_pool2d(x, 2, return_indices=True)[0])], "nn.MaxPool2d"),
    "one-dimensional max pooling": ([nn.Flatten(2), nn.MaxPool1d(2)], "nn.MaxPool2d"),
    "maximum over a dimension": ([Lambda(lambda x: x.amax((2, 3)))], "nn.AdaptiveMaxPool2d"),
    "maximum of two": ([Lambda(lambda x: torch.maximum(x, x * 0.5))], "nn.MaxPool2d"),
    "BatchNorm without statistics": (
        [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)],
        "track_running_stats=True",
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
    "clamping from above": ([Lambda(lambda x: x.clamp(0, 1))], "--backbone.activation relu"),
    "clamping above zero": ([Lambda(lambda x: x.clamp(min=0.5))], "--backbone.activation relu"),
    "LayerNorm": ([nn.LayerNorm((4, 4, 4))], "--backbone.normalisation batch"),
    "GroupNorm": ([nn.GroupNorm(2, 4)], "--backbone.normalisation batch"),
    "dropout that stays on": ([Lambda(lambda x: F.dropout(x, 0.5))], "nn.Dropout"),
    "control flow": ([Branching()], "branches on values"),
    "product of activations": ([Lambda(lambda x: x * x)], "not known to be linear"),
    "flattening the batch": ([Lambda(lambda x: x.flatten().view(-1, 64))], "mixes images"),
    "a batch size in the code": ([Lambda(lambda x: x.view(1, -1))], "mixes images"),
    "a batch size in a tuple": ([Lambda(lambda x: x.view((1, -1)))], "mixes images"),
    "a batch size by name": ([Lambda(lambda x: torch.reshape(x, shape=(1, -1)))], "mixes images"),
    "the batch as rows": ([Lambda(lambda x: x.reshape(-1, 4))], "mixes images"),
    "flattening the batch, from the end": ([nn.Flatten(-4), Lambda(lambda x: x.view(-1, 64))], "mixes images"),
    "mean over images": ([Lambda(lambda x: x.mean(0))], "mixes images"),
    "mean over images, from the end": ([nn.Flatten(), Lambda(lambda x: x.mean(-2, keepdim=True))], "mixes images"),
    "mean of features over images": ([nn.Flatten(), Lambda(lambda x: x + x.mean(axis=-2))], "mixes images"),
    "mean over everything": ([Lambda(lambda x: x + x.mean(dim=[]))], "mixes images"),
    "concatenation of images": ([Lambda(lambda x: torch.cat([x, x]).view(-1, 128))], "mixes images"),
    "concatenation of images by name": ([Lambda(lambda x: torch.cat(tensors=[x, x], dim=-4))], "mixes images"),
    "rounded division": ([Lambda(lambda x: x.div(0.25, rounding_mode="floor"))], "leave rounding_mode out"),
    "rounded division, function": ([Lambda(lambda x: torch.div(x, 3, rounding_mode="trunc"))], "rounding_mode out"),
    "scaled addition": ([Lambda(lambda x: torch.add(x, x, alpha=2))], "alpha"),
    "addition of features to pictures": ([Lambda(lambda x: x + x.mean((2, 3)))], "numbers of dimensions"),
    "BatchNorm of sequences": ([nn.Flatten(2), nn.BatchNorm1d(4)], "nn.BatchNorm2d"),
    "functional convolution": ([Lambda(lambda x: F.conv2d(x, torch.ones(1, 4, 1, 1)))], "nn.Conv2d"),
    "overwriting what is used in another shape": ([Lambda(lambda x: x.flatten(1) + x.relu_().flatten(1))], "inplace"),
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


def test_a_network_that_fails_on_several_images_is_refused_with_what_it_says():
    net = network(nn.Flatten(), Lambda(lambda x: torch.cat([x, torch.zeros(1, 3)], 1)))
    with pytest.raises(UserError, match=r"it fails on a batch of 3 images \(RuntimeError: Sizes of tensors must match"):
        inspect(net, nn.Linear(67, 2)).require()


def test_what_mixes_images_is_no_analog_front_either():
    net = network(nn.Flatten(), Lambda(lambda x: x.mean(-2, keepdim=True)), nn.Linear(64, 8), nn.ReLU())
    for hybrid in ("none", "auto", 1):
        with pytest.raises(UserError, match="mixes images") as error:
            inspect(net, nn.Linear(8, 2), hybrid).require()
        assert "--hybrid" not in str(error.value)


def test_a_network_without_relu_is_rejected():
    net = StaticBackbone((1, 4, 4), [nn.Conv2d(1, 2, 3)], nn.Flatten())
    for hybrid in ("none", "auto"):
        with pytest.raises(UserError, match="nothing would spike"):
            inspect(net, nn.Linear(8, 2), hybrid).require()


def test_a_head_that_is_not_linear_is_rejected():
    with pytest.raises(UserError, match=r"head \(Sequential\).* make the head one nn.Linear layer"):
        inspect(network(nn.AvgPool2d(2)), nn.Sequential(nn.Linear(4, 2)), "auto").require()


SHARED = nn.ReLU()
ACCEPTED = [
    [nn.AvgPool2d(2)],
    [nn.AdaptiveAvgPool2d(3)],
    [nn.Dropout(0.5)],
    [nn.ReLU(inplace=True)],
    [nn.Conv2d(4, 4, 1), QCFS(4, 8)],
    [nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)],
    [nn.Conv2d(4, 2, 3), nn.AvgPool2d(2), nn.BatchNorm2d(2)],
    [nn.BatchNorm2d(4)],
    [nn.Conv2d(4, 4, 1), SHARED, nn.Conv2d(4, 4, 1), SHARED],
    [nn.MaxPool2d(2)],
    [nn.AdaptiveMaxPool2d(2)],
    [nn.ZeroPad2d(1)],
    [Lambda(F.relu)],
    [Lambda(torch.relu)],
    [Lambda(lambda x: x.relu_())],
    [Lambda(lambda x: x.clamp(min=0))],
    [Lambda(lambda x: torch.clamp_min(x, 0.0))],
    [Lambda(lambda x: x.relu_() + x)],
    [Lambda(lambda x: F.max_pool2d(x, 2))],
    [Lambda(lambda x: F.dropout(x, 0.5, training=False))],
    [Lambda(lambda x: x.mean((2, 3)))],
    [Lambda(lambda x: x.view(x.size(0), -1))],
    [Lambda(lambda x: torch.flatten(x, 1))],
    [Lambda(lambda x: torch.cat([x, x], 1))],
    [Lambda(lambda x: F.avg_pool2d(x, 2) * 0.5)],
    [Lambda(lambda x: 0.5 * x / 3)],
    [Lambda(lambda x: torch.cat(tensors=(x, x), axis=-3))],
    [Lambda(lambda x: x.mean(dim=[-1, -2], keepdim=True))],
    [Lambda(lambda x: F.max_pool2d(input=x, kernel_size=2))],
    [Lambda(lambda x: x.flatten(start_dim=-3))],
    [nn.Flatten(2), nn.Linear(16, 5)],
]


@pytest.mark.parametrize("layers", ACCEPTED, ids=lambda layers: type(layers[-1]).__name__)
def test_what_can_be_converted_passes(layers):
    net = network(*layers)
    inspect(net, nn.Linear(net.feature_dim, 2)).require()


def verdicts(net, hybrid="none"):
    return [(row["layer"], row["verdict"]) for row in inspect(net, nn.Linear(net.feature_dim, 2), hybrid).rows]


def test_rows_say_what_becomes_of_every_layer():
    net = network(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), Lambda(F.relu), nn.BatchNorm2d(4), nn.Dropout(0.1))
    assert verdicts(net) == [
        ("body.0.0", "kept (linear)"),
        ("body.0.1", "spiking neuron"),
        ("body.1.0", "kept (linear)"),
        ("body.1.1", "folded into body.1.0"),
        ("body.1.2", "spiking neuron"),
        ("body.1.3", "kept as an affine layer"),
        ("body.1.4", "removed (does nothing in evaluation)"),
        ("tail", "kept (linear)"),
        ("head", "kept (linear)"),
    ]


def test_max_pooling_is_converted_with_its_caveat():
    net = network(nn.Conv2d(4, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU())
    rows = dict(verdicts(net))
    assert "running sum, which spikes-only hardware lacks" in rows["body.1.1"]
    assert rows["body.1.2"] == "folded into body.1.0"  # through the pool: its factors are positive


def mixed():
    return network(nn.GELU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1), nn.ReLU())


def test_an_analog_front_is_offered_where_it_helps():
    with pytest.raises(UserError, match=r"analog \(--hybrid auto\)"):
        inspect(mixed(), nn.Linear(16, 2)).require()
    assert dict(verdicts(mixed()))["body.1.0"].endswith("(--backbone.activation relu); or --hybrid auto")
    at_the_end = network(nn.GELU())
    for hybrid in ("none", "auto"):  # nothing would be left to spike
        with pytest.raises(UserError, match=r"body.1.0 \(GELU\)") as error:
            inspect(at_the_end, nn.Linear(64, 2), hybrid).require()
        assert "hybrid" not in str(error.value)


def test_a_hybrid_keeps_its_front_analog():
    automatic = dict(verdicts(mixed(), "auto"))
    analog = [layer for layer, verdict in automatic.items() if verdict == "kept analog (hybrid)"]
    assert analog == ["body.0.1", "body.1.0"]
    assert automatic["body.1.2"] == automatic["body.1.5"] == "spiking neuron"
    longer = dict(verdicts(mixed(), 2))
    analog = [layer for layer, verdict in longer.items() if verdict == "kept analog (hybrid)"]
    assert analog == ["body.0.1", "body.1.0", "body.1.2", "body.1.3"]
    inspect(mixed(), nn.Linear(16, 2), 2).require()
    with pytest.raises(UserError, match=r"body.1.0 \(GELU\)"):
        inspect(mixed(), nn.Linear(16, 2), 0).require()
    with pytest.raises(UserError, match="which has 3 activations"):
        inspect(mixed(), nn.Linear(16, 2), 3)


NORMALISED = "feedback.spoerer"
"""It divides values by those of other channels."""


@pytest.mark.parametrize("pooling", ["avg", "max", "stride"])
@pytest.mark.parametrize(
    "name",
    [
        name
        for _, name, entry in Registry.discover().choices("backbones")
        if not entry.takes_path and name != NORMALISED
    ],
)
def test_registered_networks_are_convertible_as_they_come(name, pooling):
    registry = Registry.discover()
    schema = registry.options("backbones", name)
    pools = schema is not None and "pooling" in schema.__dataclass_fields__
    net = registry.load("backbones", name)((1, 16, 16), schema(pooling=pooling) if pools else schema and schema())
    inspect(net.eval(), nn.Linear(net.feature_dim, 2)).require()
