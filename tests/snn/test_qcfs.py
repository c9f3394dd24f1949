"""The clip-floor-shift activation against its formulas and against integrate-and-fire neurons; the adapter snn.qcfs."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.contract import Named
from engram.backbone.errors import UserError
from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.folding import stage_names, trace
from engram.backbone.nets.making import build
from engram.snn.neurons.quantised import QCFS
from engram.snn.training.options import QCFSOptions
from engram.snn.training.qcfs import qcfs


def spike_count(x, theta, steps):
    """Integrate-and-fire with soft reset from half the threshold, driven by a constant."""
    v, count = 0.5 * theta * torch.ones_like(x), torch.zeros_like(x)
    for _ in range(steps):
        v = v + x
        s = (v >= theta).to(x.dtype)
        v, count = v - theta * s, count + s
    return count


@pytest.mark.parametrize("levels", [1, 2, 4, 7])
def test_it_is_what_neurons_send_in_as_many_steps(levels):
    x = torch.linspace(-2, 4, 4001, dtype=torch.float64)[:, None]
    layer = QCFS(1, levels, 1.25).double()
    torch.testing.assert_close(layer(x), spike_count(x, 1.25, levels) * 1.25 / levels)


def test_gradients_are_the_papers():
    theta, levels = 1.5, 4
    x = torch.tensor([-1.0, -0.2, -0.1, 0.3, 0.8, 1.2, 1.35, 9.0], dtype=torch.float64, requires_grad=True)
    layer = QCFS(1, levels, theta).double()
    h = layer(x[:, None])
    h.sum().backward()
    inside = (x >= -theta / (2 * levels)) & (x < theta - theta / (2 * levels))
    assert torch.equal(x.grad, inside.double())
    above = x >= theta - theta / (2 * levels)
    expected = torch.where(inside, (h[:, 0] - x) / theta, above.double()).sum()
    torch.testing.assert_close(layer.threshold.grad, expected.detach()[None])


def test_gradient_of_the_threshold_is_that_of_a_straight_through_floor():
    """Against autograd through theta * clip(x / theta), with the floor's rounding added as a constant."""
    x = torch.randn(6, 3, 5, 5, dtype=torch.float64)
    layer = QCFS(3, 4, 1.0).double()
    with torch.no_grad():
        layer.threshold.copy_(torch.tensor([0.5, 1.0, 2.0]))
    weight = torch.randn_like(x)
    (layer(x) * weight).sum().backward()
    theta = layer.threshold.detach().clone().requires_grad_()
    t = theta.view(1, 3, 1, 1)
    smooth = x / t
    rounded = smooth + ((smooth * 4 + 0.5).floor() / 4 - smooth).detach()
    clipped = torch.where((rounded >= 0) & (rounded < 1), rounded, (rounded >= 1).double())
    (t * clipped * weight).sum().backward()
    torch.testing.assert_close(layer.threshold.grad, theta.grad)


def test_a_threshold_below_zero_still_works():
    layer = QCFS(2, 4, 1.0)
    with torch.no_grad():
        layer.threshold.copy_(torch.tensor([-1.0, 2.0]))
    y = layer(torch.ones(1, 2))
    assert torch.isfinite(y).all() and y[0, 1] == 1 and 0 < y[0, 0] < 1e-3


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_threshold_below_zero_comes_back_where_the_loss_wants_it(optimizer):
    layer, x = QCFS(2, 4, 1.0), torch.rand(256, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.threshold.fill_(-0.3)
    steps = optimizer(layer.parameters(), 0.05)
    wanted = torch.stack([x[:, 0], torch.zeros(256)], 1)  # the second channel is best left silent
    for _ in range(150):
        steps.zero_grad()
        F.mse_loss(layer(x), wanted).backward()
        steps.step()
    assert 0.7 < layer.threshold[0] < 1.1
    assert layer.threshold[1].item() == pytest.approx(-0.3)  # nor is it driven further away


# --- the adapter ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "lenet5", "vgg-tiny", "resnet-tiny", "airnet"])
def test_every_network_can_be_adapted_traced_and_trained(name):
    torch.manual_seed(0)
    adapters = [Named("snn.qcfs", 1, {"levels": 4})]
    options = {"width": 0.25} if name == "mlp" else {"width": 0.25, "pooling": "max"}
    model = build(name, options, (1, 12, 12), 3, torch.zeros(1), torch.ones(1), adapters=adapters)
    net, x = model.backbone, torch.randn(16, 1, 12, 12)
    assert not any(isinstance(module, nn.ReLU | nn.MaxPool2d) for module in net.modules())
    net.prepare(x)
    model.train()(x).square().sum().backward()
    thresholds = [module.threshold for module in net.modules() if isinstance(module, QCFS)]
    assert thresholds and all(torch.isfinite(theta.grad).all() and (theta > 0).all() for theta in thresholds)
    model.eval()
    graph = trace(net)
    torch.testing.assert_close(graph(x), net(x))
    assert set(stage_names(net)) <= {node.name for node in graph.graph.nodes}
    assert sum(isinstance(module, QCFS) for module in graph.modules()) == len(thresholds)


def small(*layers):
    return StaticBackbone((2, 8, 8), [nn.Sequential(*layers)], nn.Flatten())


def test_the_network_given_is_left_alone():
    net = small(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2))
    before = copy.deepcopy(net.state_dict())
    adapted = qcfs(net, QCFSOptions())
    adapted.prepare(torch.randn(8, 2, 8, 8))
    assert any(isinstance(module, nn.MaxPool2d) for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(("per", "sizes"), [("channel", [3, 5]), ("layer", [1, 1])])
def test_a_threshold_by_channel_or_layer(per, sizes):
    net = small(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 5, 3), nn.ReLU())
    adapted = qcfs(net, QCFSOptions(per=per))
    assert [len(module.threshold) for module in adapted.modules() if isinstance(module, QCFS)] == sizes


def test_one_relu_used_at_two_widths_gets_one_threshold():
    relu = nn.ReLU()
    adapted = qcfs(small(nn.Conv2d(2, 3, 3), relu, nn.Conv2d(3, 5, 3), relu), QCFSOptions())
    (layer,) = {module for module in adapted.modules() if isinstance(module, QCFS)}
    assert len(layer.threshold) == 1


def test_thresholds_given_are_not_measured():
    adapted = qcfs(small(nn.Conv2d(2, 3, 3), nn.ReLU()), QCFSOptions(threshold=8.0))
    adapted.prepare(torch.randn(8, 2, 8, 8))
    (layer,) = (module for module in adapted.modules() if isinstance(module, QCFS))
    assert (layer.threshold == 8).all()


@pytest.mark.parametrize("trained", [True, False])
def test_measured_thresholds_quantise_with_the_least_error(trained, quantisation_error, least_quantisation_error):
    torch.manual_seed(0)
    net = small(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    net.body[0][1].running_var.fill_(4.0)
    net.eval()
    adapted, images = qcfs(net, QCFSOptions(levels=4)), torch.randn(40, 2, 8, 8)
    (adapted.calibrate if trained else adapted.prepare)(images)
    (layer,) = (module for module in adapted.modules() if isinstance(module, QCFS))
    analog = copy.deepcopy(net).train(not trained)
    y = analog.stages(images)[0].detach().transpose(0, 1).flatten(1)
    for values, threshold in zip(y, layer.threshold.tolist(), strict=True):
        assert quantisation_error(values, threshold, 4) < 1.01 * least_quantisation_error(values.numpy(), 4)
    assert (net.body[0][1].running_var == 4).all()


def test_a_channel_that_never_fires_takes_the_mean_of_the_others():
    conv = nn.Conv2d(2, 3, 3)
    with torch.no_grad():
        conv.weight[1].zero_()
        conv.bias[1] = -1
    adapted = qcfs(small(conv, nn.ReLU()).eval(), QCFSOptions())
    adapted.calibrate(torch.randn(8, 2, 8, 8))
    (layer,) = (module for module in adapted.modules() if isinstance(module, QCFS))
    assert layer.threshold[1].item() == pytest.approx((layer.threshold[0] + layer.threshold[2]).item() / 2)


def accuracy_of(model, images, labels):
    with torch.no_grad():
        return (model.eval()(images).argmax(1) == labels).float().mean().item()


def test_measured_thresholds_keep_what_a_trained_network_knows_and_training_finds_them_too(trained, digits):
    images, labels, _ = next(digits.train.batches(torch.arange(len(digits.train)), 2000, "cpu"))
    measured, model = copy.deepcopy(trained), copy.deepcopy(trained)
    measured.backbone = qcfs(trained.backbone, QCFSOptions(levels=2))
    measured.backbone.calibrate(measured.normalise(images))
    assert accuracy_of(measured, images, labels) > 0.95
    model.backbone = qcfs(trained.backbone, QCFSOptions(levels=2, threshold=8.0))
    assert accuracy_of(model, images, labels) < 0.5
    thresholds = [parameter for name, parameter in model.named_parameters() if name.endswith("threshold")]
    rest = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    optimizer = torch.optim.AdamW([{"params": thresholds, "lr": 0.2}, {"params": rest, "lr": 1e-3}], weight_decay=0)
    model.train()
    for _ in range(2):
        for chosen in torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    assert accuracy_of(model, images, labels) > 0.95
    assert all(theta.mean() < 6 for theta in thresholds)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((nn.Conv2d(2, 3, 3), nn.GELU()), "a network for snn.qcfs must be one with ReLUs"),
        ((nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2, dilation=2)), "max pool body.0.2 must be without dilation"),
    ],
)
def test_what_cannot_be_adapted(layers, message):
    with pytest.raises(UserError, match=message):
        qcfs(small(*layers), QCFSOptions())
