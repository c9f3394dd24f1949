"""Networks run backward with their own weights, against autograd, brute force and finite differences."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from engram.backbone.contract import Site
from engram.backbone.errors import UserError
from engram.backbone.nets.blocks import PooledConv2d
from engram.backbone.nets.making import build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.feedback.generative.operations import ada_pool, ada_relu, instance_norm, operation


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def classifier(backbone: str = "vgg-tiny", classes: int = 3, adapter: str = "feedback.generative", **options):
    """In float64; options of the backbone begin with ``b_``."""
    own = {name[2:]: options.pop(name) for name in list(options) if name.startswith("b_")}
    torch.manual_seed(0)
    adapters = [in_full(Registry.discover(), "adapters", adapter, options)] if adapter else []
    return build(backbone, own, (2, 9, 9), classes, torch.zeros(2), torch.ones(2), adapters=adapters).eval().double()


@pytest.fixture
def x() -> Tensor:
    return random(1, 4, 2, 9, 9)


LINEAR = [
    nn.Conv2d(4, 6, 3, padding=1),
    nn.Conv2d(4, 6, 3, stride=2, padding=1),
    nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(0, 1), dilation=(2, 1), groups=2),
    PooledConv2d(4, 6, 3, padding=1),
    nn.AvgPool2d(2),
    nn.AvgPool2d(3, 2, padding=1),
    nn.AvgPool2d(3, 1, divisor_override=5),
    nn.AdaptiveAvgPool2d(1),
    nn.ZeroPad2d((1, 2, 0, 3)),
    nn.Flatten(),
    nn.Sequential(nn.Flatten(), nn.Linear(4 * 63, 5)),
    nn.Identity(),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
]


@pytest.mark.parametrize("layer", LINEAR, ids=str)
def test_the_way_down_is_the_adjoint_of_the_way_up(layer):
    """<W x, y> = <x, W' y>, also of what is linear once activations and places have been chosen."""
    layer = layer.double()
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    x, seen = random(0, 3, 4, 7, 9), []
    value = x
    layers = list(layer) if isinstance(layer, nn.Sequential) else [layer]
    for each in layers:
        known = operation_of(each)
        bias = getattr(each, "bias", None)
        value, what = known.up(each, value, None, 0.1)
        value = value if bias is None else value - bias.view(-1, *[1] * (value.ndim - 2))
        seen.append((known, each, what))
    y = top = random(9, *value.shape)
    for known, each, what in reversed(seen):
        top = known.down(each, top, what)
    assert top.shape == x.shape
    torch.testing.assert_close((value * y).sum(), (x * top).sum(), rtol=1e-10, atol=1e-10)


def operation_of(layer: nn.Module):
    graph = torch.fx.Graph()
    graph.call_module("layer", (graph.placeholder("x"),))
    found = operation(list(graph.nodes)[1], layer)
    assert found is not None
    return found


@torch.no_grad()
def test_activations_and_poolings_choose_what_agrees_most_with_what_came_down():
    """By brute force over all choices: z of each unit, and the place in each window, that make z x g the largest."""
    x, came = random(3, 2, 3, 4, 4), random(4, 2, 3, 4, 4)
    value, (chosen,) = ada_relu(None, x, came, 0.25)
    mixed = x + 0.25 * (came - x)
    for unit, other, y, z in zip(mixed.flatten(), came.flatten(), value.flatten(), chosen.flatten(), strict=True):
        best = max((0, 1), key=lambda choice, unit=unit, other=other: choice * unit * other)
        assert z == best and y == best * unit
    came = random(5, 2, 3, 2, 2)
    came[0, 0, 0, 0] = 0
    value, _ = ada_pool(nn.MaxPool2d(2), x, came, 0.25)
    for image, channel, row, column in product(range(2), range(3), range(2), range(2)):
        window, g = (
            x[image, channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2],
            came[image, channel, row, column],
        )
        best = max(window.flatten(), key=lambda v, g=g: v * g) if g else 0
        assert value[image, channel, row, column] == best
    assert ada_relu(None, x, None, 0.25)[0].equal(x.relu())
    assert ada_pool(nn.MaxPool2d(2), x, None, 0.25)[0].equal(nn.functional.max_pool2d(x, 2))


def test_instance_norm_divides_maps_by_their_size():
    x = random(6, 2, 3, 5, 4)
    ones = torch.ones(2, 3, dtype=torch.float64)
    torch.testing.assert_close(instance_norm(x).square().mean((2, 3)), ones, rtol=1e-6, atol=0)
    torch.testing.assert_close(instance_norm(x[..., 0, 0]).square().mean(1), ones[:, 0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("pooling", ["avg", "max", "stride"])
@pytest.mark.parametrize("backbone", ["vgg-tiny", "resnet-tiny", "lenet5"])
def test_without_normalisation_what_comes_down_is_the_transposed_jacobian(x, backbone, pooling):
    """Of logits with respect to the first stage, at the image: activations and maxima as on the way up."""
    model = classifier(backbone, b_normalisation="none", b_pooling=pooling)
    net = model.backbone
    with torch.no_grad():
        _, state = net.advance(x, net.begin(x), 0)
        _, state = net.advance(x, state._replace(), 1)
    held = net.inner.apply_stage(0, x).detach().requires_grad_()
    value = held
    for stage in range(1, len(net.stage_channels)):
        value = net.inner.apply_stage(stage, value)
    logits = model.head(net.inner.apply_tail(value))
    (expected,) = torch.autograd.grad(logits, held, logits.detach())
    torch.testing.assert_close(state.memory["came"][0], expected)
    torch.testing.assert_close(state.held, 0.9 * held + 0.1 * expected)


@pytest.mark.parametrize("backbone", ["vgg-tiny", "resnet-tiny", "mlp", "conv4"])
@torch.no_grad()
def test_the_first_step_is_the_wrapped_network(x, backbone):
    net = classifier(backbone).backbone
    features = net.forward_steps(x)
    assert len(features) == 3 and not torch.allclose(features[0], features[1])
    torch.testing.assert_close(features[0], classifier(backbone, adapter="").backbone(x))


@torch.no_grad()
def test_no_image_looks_at_another_and_nothing_is_left_over(x):
    net = classifier(b_pooling="max").backbone
    together = net.forward_steps(x)
    assert net.forward_steps(x).equal(together)
    torch.testing.assert_close(net.forward_steps(x.flip(0)).flip(1), together)
    torch.testing.assert_close(torch.cat([net.forward_steps(x[i : i + 1]) for i in range(4)], 1), together)


@torch.no_grad()
def test_equal_frames_are_a_still_image_and_another_frame_changes_what_is_held(x):
    net = classifier(connections="logits>layer2").backbone
    still = net.forward_steps(x)
    torch.testing.assert_close(net.forward_steps(x[:, None].expand(-1, 3, -1, -1, -1)), still)
    frames = torch.stack([x, x, 2 * x], 1)
    moved = net.forward_steps(frames)
    assert moved[:2].allclose(still[:2]) and not moved[2].allclose(still[2])


def test_gradients_of_weights_that_work_both_ways_are_finite_differences(x):
    model = classifier(b_pooling="max", norm="shared")
    weights = [model.backbone.inner.body[1][0].weight, model.head.weight]
    directions = [random(7 + i, *weight.shape) for i, weight in enumerate(weights)]

    def loss() -> Tensor:
        return model(x).sin().sum()

    grads = torch.autograd.grad(loss(), weights)
    for weight, direction, grad in zip(weights, directions, grads, strict=True):
        ends = []
        for distance in (1e-6, -1e-6):
            with torch.no_grad():
                weight.add_(distance * direction)
                ends.append(loss().item())
                weight.sub_(distance * direction)
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx((grad * direction).sum().item(), rel=1e-5)
    assert len(list(model.parameters())) == len(list(classifier(adapter="", b_pooling="max").parameters()))


def test_training_draws_what_comes_down_to_what_was_there(x):
    model = classifier(norm="shared", reconstruction=1.0)
    net = model.backbone

    def error() -> float:
        with torch.no_grad():
            _, first = net.advance(x, net.begin(x), 0)
            _, second = net.advance(x, first, 1)
        return sum(((r - h) ** 2).mean().item() for r, h in zip(second.memory["came"], first.stages, strict=True))

    net.steps, before = 2, error()
    (grad,) = torch.autograd.grad(model(x).sum() * 0, net.inner.body[2][0].weight)
    assert not grad.any()  # in evaluation mode there is no such term
    net.training = True
    for _ in range(8):
        weights = [weight for weight in model.parameters() if weight.ndim > 1]
        grads = torch.autograd.grad(model(x).sum() * 0, weights)
        with torch.no_grad():
            for weight, grad in zip(weights, grads, strict=True):
                weight.sub_(0.1 * grad)
    assert error() < 0.9 * before


@torch.no_grad()
def test_a_tap_sees_what_moves_and_every_stage(x):
    net = classifier(connections="logits>layer2").backbone
    seen = []

    def look(site: Site, value: Tensor) -> Tensor:
        seen.append(site)
        return value

    assert net.forward_steps(x, look).equal(net.forward_steps(x))
    assert [site.step for site in seen if site.name == "logits>layer2"] == [1, 2]
    assert [site for site in seen if site.stage == 0][2].step == 2
    assert [stage.shape[0] for stage in net.stage_steps(x)] == [3, 3, 3]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"b_activation": "gelu"}, r"transposed; got one with body.1.2 \(GELU\), body.2.2 \(GELU\)"),
        ({"backbone": "mlp", "b_dropout": 0.5}, r"\(Dropout\)"),
        ({"connections": "layer3>layer1"}, "must be one, from logits; got layer3>layer1"),
    ],
)
def test_what_cannot_go_down_is_named(options, said):
    with pytest.raises(UserError, match=said):
        classifier(**options)
    with pytest.raises(UserError, match=r"the head behind feedback\.generative must be a linear layer; got Flatten"):
        classifier().backbone.introduce(nn.Flatten())
