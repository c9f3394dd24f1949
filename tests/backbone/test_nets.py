import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.contract import Backbone, Named
from engram.backbone.errors import UserError
from engram.backbone.nets.blocks import Add, PooledConv2d, scaled
from engram.backbone.nets.classifier import Normalise
from engram.backbone.nets.folding import bake
from engram.backbone.nets.making import build
from engram.backbone.registry import Registry

NAMES = ["mlp", "lenet5", "vgg-tiny", "vgg-small", "resnet-tiny", "resnet18", "airnet", "conv4", "resnet12"]
CONVOLUTIONAL = NAMES[1:]
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 41, 13), (3, 12, 40)]
SMALL = {"width": 0.25}


def test_names_are_those_registered():
    assert set(NAMES) <= set(Registry.discover().names("backbones"))


def test_units_are_those_a_protocol_asks_for(backbone):
    net = backbone("mlp", (1, 4, 4), units=100, width=3.0)
    assert [layer.out_features for layer in net.tail if isinstance(layer, nn.Linear)] == [100, 100]


@pytest.mark.parametrize("adapters", [(), [Named("snn.spiking", 1, {})]], ids=["analog", "spiking"])
def test_glorot_spreads_weights_by_both_sides_of_a_layer(adapters):
    model = build("mlp", {"initialisation": "glorot"}, (1, 8, 8), 10, torch.zeros(1), torch.ones(1), adapters=adapters)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    sides = [(64, 256), (256, 256), (256, 10)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == sides
    for layer, (before, after) in zip(layers, sides, strict=True):
        assert (layer.bias == 0).all()
        assert layer.weight.abs().max().item() == pytest.approx((6 / (before + after)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_contract(backbone, name, shape):
    if name == "airnet" and shape == (1, 8, 8):
        with pytest.raises(UserError, match="images for airnet must be at least 9x9; got 8x8"):
            backbone(name, shape, **SMALL)
        return
    net = backbone(name, shape, **SMALL).eval()
    x = torch.randn(3, *shape)
    assert isinstance(net, Backbone)
    assert (net.in_shape, net.steps, net.readout) == (shape, 1, "mean")
    features, stages = net(x), net.stages(x)
    assert features.shape == (3, net.feature_dim)
    assert tuple(stage.shape[1] for stage in stages) == net.stage_channels
    assert all(stage.ndim == 4 and len(stage) == 3 for stage in stages)
    assert torch.equal(net.forward_steps(x), features[None])
    assert torch.equal(net.tail(stages[-1]), features)


@pytest.mark.parametrize("name", NAMES)
def test_event_frames_are_steps_whose_mean_is_read_out(backbone, name):
    net = backbone(name, (2, 16, 16), **SMALL).eval()
    x = torch.randn(3, 4, 2, 16, 16)
    steps = net.forward_steps(x)
    assert steps.shape == (4, 3, net.feature_dim)
    for t in range(4):
        torch.testing.assert_close(steps[t], net(x[:, t]))
    torch.testing.assert_close(net(x), steps.mean(0))
    means = [torch.stack(stage).mean(0) for stage in zip(*(net.stages(x[:, t]) for t in range(4)), strict=True)]
    torch.testing.assert_close(net.stages(x), means)


@pytest.mark.parametrize("name", NAMES)
def test_building_leaves_statistics_and_mode_alone(backbone, name):
    net = backbone(name, (1, 16, 16), **SMALL)
    assert net.training
    assert all(n.num_batches_tracked == 0 for n in net.modules() if isinstance(n, nn.BatchNorm2d))


@pytest.mark.parametrize("name", ["lenet5", "vgg-tiny", "vgg-small", "resnet-tiny", "airnet"])
def test_too_small_pictures_are_one_clear_error(backbone, name):
    with pytest.raises(UserError, match=rf"images for {name} must be at least .*got 3x20\. .*mlp"):
        backbone(name, (1, 3, 20))


def kinds(net):
    return [type(module) for module in net.modules()]


def weights(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("chosen", "kind"), [("relu", nn.ReLU), ("leaky-relu", nn.LeakyReLU), ("gelu", nn.GELU), ("silu", nn.SiLU)]
)
def test_activation(backbone, name, chosen, kind):
    net = backbone(name, (1, 16, 16), activation=chosen, **SMALL)
    count = sum(isinstance(m, nn.ReLU) for m in backbone(name, (1, 16, 16), **SMALL).modules())
    assert kinds(net).count(kind) == count > 0


@pytest.mark.parametrize("name", NAMES)
def test_normalisation(backbone, name):
    nets = {norm: backbone(name, (1, 16, 16), normalisation=norm, **SMALL) for norm in ("batch", "group", "none")}
    found = {norm: {type(m) for m in net.modules()} for norm, net in nets.items()}
    batch, group = {nn.BatchNorm1d, nn.BatchNorm2d}, {nn.GroupNorm, nn.LayerNorm}
    assert found["batch"] & batch and not found["batch"] & group
    assert found["group"] & group and not found["group"] & batch
    assert not found["none"] & (batch | group)
    for net in nets.values():
        net(torch.randn(4, 1, 16, 16)).sum().backward()


def test_a_convolution_has_a_bias_unless_a_norm_follows(backbone):
    for name in CONVOLUTIONAL:
        for norm in ("batch", "none"):
            net = backbone(name, (1, 16, 16), normalisation=norm, **SMALL)
            convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
            biased = sum(conv.bias is not None for conv in convs)
            assert biased == (len(convs) if norm == "none" else int(name == "airnet")), (name, norm)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_pooling(backbone, name):
    outs = {}
    for pooling in ("avg", "max", "stride"):
        net = backbone(name, (1, 32, 32), pooling=pooling, **SMALL).eval()
        outs[pooling] = [tuple(s.shape[2:]) for s in net.stages(torch.randn(1, 1, 32, 32))]
        assert (nn.MaxPool2d in kinds(net)) == (pooling == "max")
        averaging = {nn.AvgPool2d, PooledConv2d} & set(kinds(net))
        assert bool(averaging) == (pooling == "avg")
    assert outs["avg"] == outs["max"]
    assert all(a <= b for a, b in zip(outs["avg"], outs["stride"], strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_width(backbone, name):
    sizes = [weights(backbone(name, (1, 16, 16), width=width)) for width in (0.01, 0.25, 0.5, 1.0)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "lenet5"])
def test_depth(backbone, name):
    layers = [
        sum(isinstance(m, nn.Conv2d | nn.Linear) for m in backbone(name, (1, 16, 16), depth=depth, **SMALL).modules())
        for depth in (1, 2, 3)
    ]
    step = {"mlp": 1, "resnet-tiny": 6, "resnet18": 8, "conv4": 4, "resnet12": 4}.get(name, 3)
    assert [layers[1] - layers[0], layers[2] - layers[1]] == [step, step]


def test_lenet5_refuses_a_depth(backbone):
    with pytest.raises(UserError, match=r"--backbone\.depth must be left out for lenet5; got 2"):
        backbone("lenet5", (1, 28, 28), depth=2)


def test_dropout_silences_in_training_only(backbone):
    net = backbone("mlp", (1, 4, 4), dropout=0.5)
    x = torch.randn(2, 1, 4, 4)
    assert 0.6 < (net(x) == 0).float().mean() < 0.9  # half by chance, half of the rest by ReLU
    net.eval()
    assert torch.equal(net(x), net(x))


def test_widths_are_multiples_of_eight_once_changed():
    assert [scaled(6, 1), scaled(120, 1), scaled(64, 0.5), scaled(120, 0.75), scaled(6, 0.01), scaled(6, 2)] == [
        *(6, 120, 32, 88, 1, 12)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_use_of_an_activation_is_a_module_of_its_own(backbone, name):
    net, calls = backbone(name, (1, 16, 16), **SMALL).eval(), {}
    for place, module in net.named_modules(remove_duplicate=False):
        if isinstance(module, nn.ReLU | Add):
            module.register_forward_hook(lambda *_, place=place: calls.update({place: calls.get(place, 0) + 1}))
    net(torch.randn(1, 1, 16, 16))
    places = [place for place, module in net.named_modules(remove_duplicate=False) if isinstance(module, nn.ReLU | Add)]
    assert calls == dict.fromkeys(places, 1)


def test_conv4_pools_while_there_is_something_to_pool(backbone):
    for side, left in ((84, 5), (28, 1), (16, 1), (8, 1), (3, 1), (1, 1)):
        net = backbone("conv4", (1, side, side), width=0.25).eval()
        assert net.feature_dim == 16 * left**2
        assert sum(isinstance(module, nn.MaxPool2d) for module in net.modules()) == min(4, side.bit_length() - 1)


def test_conv4_is_the_papers_whose_maxima_come_before_the_activation(backbone):
    """Source: Snell et al. 2017, section 3.1: convolution, BatchNorm, ReLU, 2x2 maxima, four times."""
    net, x = backbone("conv4", (1, 28, 28)), torch.randn(5, 1, 28, 28)
    assert weights(net) == 64 * 9 + 3 * 64 * 64 * 9 + 4 * 2 * 64
    expected = x
    for stage in net.body:
        conv, norm = stage[0], stage[1]
        expected = F.max_pool2d(F.relu(F.batch_norm(conv(expected), None, None, norm.weight, norm.bias, True)), 2)
    torch.testing.assert_close(net(x), expected.flatten(1))
    for activation, before in (("relu", True), ("leaky-relu", True), ("gelu", False), ("silu", False)):
        kinds = [type(module) for module in backbone("conv4", (1, 28, 28), activation=activation).body[0]]
        assert (kinds.index(nn.MaxPool2d) < 3) == before, activation


def test_published_sizes(backbone):
    lenet = backbone("lenet5", (1, 32, 32))
    assert weights(lenet) + 85 * 10 == 61_706  # LeCun 1998 with full connections in C3 and a linear output
    airnet = build("airnet", {}, (3, 32, 32), 10, torch.zeros(3), torch.ones(3))
    assert weights(airnet) == 1_972_802


# --- airnet ---------------------------------------------------------------------------------------------------------


def correlated(channels, count=200):
    """Smooth images: neighbours and channels correlate, as in photographs."""
    base = F.avg_pool2d(torch.randn(count, 1, 20, 20), 3, 1) + 0.3 * torch.randn(count, channels, 18, 18)
    return base + 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_prepare_whitens(backbone, channels):
    net, images = backbone("airnet", (channels, 18, 18), **SMALL), correlated(channels)
    net.prepare(images)
    conv = net.body[0][0]
    assert conv.weight.shape == (8 * channels, channels, 2, 2) and not conv.weight.requires_grad
    half = 4 * channels
    assert torch.equal(conv.weight[:half], -conv.weight[half:])
    responses = conv(images).detach()[:, :half].double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(responses), torch.eye(half).double(), atol=0.05, rtol=0)


def test_prepare_does_not_depend_on_blocks_and_survives_constant_channels(backbone):
    net, images = backbone("airnet", (3, 18, 18), **SMALL), correlated(3, 47)
    images[:, 2] = 0.7
    net.prepare(images)
    patches = F.unfold(images, 2).transpose(1, 2).flatten(0, 1).double()
    values, vectors = torch.linalg.eigh(torch.cov(patches.T, correction=0))
    filters = net.body[0][0].weight[:12].detach().flatten(1).double()
    alignment = (filters.flip(0) * (vectors / (values + 5e-4).sqrt()).T).sum(1).abs() / filters.flip(0).norm(dim=1) ** 2
    torch.testing.assert_close(alignment[4:], torch.ones(8).double(), atol=1e-4, rtol=0)  # the first 4 are degenerate
    assert torch.isfinite(filters).all()


def test_kernels_begin_as_the_identity(backbone):
    net = backbone("airnet", (3, 32, 32))
    convs = [m for m in net.body[1:].modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 6
    for conv in convs:
        size = (2, conv.in_channels, 8, 8)
        x = torch.randn(size)
        same = min(conv.in_channels, conv.out_channels)
        want = F.avg_pool2d(x, 2) if isinstance(conv, PooledConv2d) else x
        torch.testing.assert_close(conv(x)[:, :same], want[:, :same], atol=1e-6, rtol=0)


# --- pooled convolution ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(2, 2), (8, 8), (7, 9), (5, 6), (3, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_pooled_convolution_is_convolution_then_pooling(size, bias):
    fused = PooledConv2d(3, 5, 3, padding=1, bias=bias).double()
    plain = nn.Conv2d(3, 5, 3, padding=1, bias=bias).double()
    plain.load_state_dict(fused.state_dict())
    x, y = (torch.randn(2, 3, *size, dtype=torch.float64) for _ in range(2))
    y.copy_(x)
    got, want = fused(x.requires_grad_()), F.avg_pool2d(plain(y.requires_grad_()), 2)
    torch.testing.assert_close(got, want)
    slope = torch.randn_like(got)
    got.backward(slope)
    want.backward(slope)
    torch.testing.assert_close(x.grad, y.grad)
    for ours, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    baked = fused.baked()
    assert type(baked) is nn.Conv2d
    torch.testing.assert_close(baked(x), got)


@pytest.mark.parametrize("name", NAMES)
def test_baking_changes_nothing_and_leaves_the_original(backbone, name, randomise):
    net = randomise(backbone(name, (1, 17, 19), **SMALL)).eval()
    before = kinds(net)
    baked, x = bake(net), torch.randn(3, 1, 17, 19)
    assert PooledConv2d not in kinds(baked) and kinds(net) == before
    torch.testing.assert_close(baked(x), net(x), atol=1e-5, rtol=1e-4)


# --- classifier -----------------------------------------------------------------------------------------------------


def test_normalise_uint8_and_float_alike():
    mean, std = torch.tensor([0.2, 0.7]), torch.tensor([0.5, 0.1])
    images = torch.randint(0, 256, (4, 2, 3, 3), dtype=torch.uint8)
    want = (images / 255 - mean[:, None, None]) / std[:, None, None]
    layer = Normalise(mean, std)
    torch.testing.assert_close(layer(images), want)
    torch.testing.assert_close(layer(images / 255), want)
    torch.testing.assert_close(layer(images[:, None]), want[:, None])


def test_classifier_is_the_chain_of_its_parts():
    model = build("lenet5", {"width": 2.0}, (1, 12, 12), 7, torch.tensor([0.4]), torch.tensor([0.2])).eval()
    x = torch.randint(0, 256, (3, 1, 12, 12), dtype=torch.uint8)
    normalised = model.normalise(x)
    assert model(x).shape == (3, 7)
    assert torch.equal(model(x), model.forward_normalised(normalised))
    assert torch.equal(model(x), model.head(model.backbone(normalised)))
