"""Feedback at its fixed point, against the same network run for a long time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engram.backbone.contract import Site
from engram.backbone.errors import TrialError, UserError
from engram.feedback.adapters.equilibrium import exhausting

KINDS = [("iteration", "gated"), ("anderson", "gated"), ("broyden", "gated"), ("anderson", "additive")]
CONNECTIONS = "layer3>layer1,logits>layer2,layer2>layer2"


@pytest.fixture
def strong(made):
    """``strong(adapter, size=0.05, **options)``: a classifier in float64 whose feedback changes something."""

    def make(adapter: str, size: float = 0.05, **options: Any) -> Any:
        model = made(adapter, **options).double()
        drawn = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for path in model.backbone.paths:
                for weight in path.conv.parameters():
                    weight.copy_(size * torch.randn(weight.shape, dtype=torch.float64, generator=drawn))
        return model

    return make


def grads_of(model: Any, x: Tensor) -> list[Tensor]:
    x = x.requires_grad_()
    loss = model(x).sin().square().sum()
    wanted = [x, *(weight for name, weight in model.named_parameters() if "norm" not in name)]
    return list(torch.autograd.grad(loss, wanted))


def far(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("combination", ["gated", "additive"])
@torch.no_grad()
def test_a_fresh_one_is_the_wrapped_network_and_looks_once(made, images, combination):
    net = made("feedback.equilibrium", combination=combination).backbone
    features = net.forward_steps(images)
    assert features.shape == (20, 5, 64)
    assert torch.equal(features, made(None).backbone(images).expand_as(features))
    calls = []
    net.inner.body[2].register_forward_hook(lambda *_: calls.append(0))
    net(images)
    assert len(calls) == 3  # without feedback, with it, and at the fixed point
    with exhausting(net):
        assert torch.equal(net(images), features[-1]) and len(calls) == 3 + 20
    net(images)
    assert len(calls) == 3 + 20 + 3


@pytest.mark.parametrize(("solver", "combination"), KINDS)
@torch.no_grad()
def test_an_equilibrium_is_where_a_long_unrolling_ends(strong, images, combination, solver):
    options = {"combination": combination, "solver": solver, "tolerance": 1e-8, "steps": 60}
    size = 0.05 if combination == "gated" else 0.001
    ours = strong("feedback.equilibrium", size, connections=CONNECTIONS, **options)
    long = strong(f"feedback.{combination}", size, connections=CONNECTIONS, steps=60, norm="shared")
    x = images.double()
    found, expected = ours.backbone.forward_steps(x), long.backbone.forward_steps(x)
    torch.testing.assert_close(found[-1], expected[-1], rtol=1e-6, atol=1e-6)
    assert torch.equal(found[0], expected[0]) and not torch.allclose(expected[0], expected[-1], rtol=1e-2)
    residuals = ours.backbone.residuals(x)
    assert residuals.shape == (59, 5) and (residuals[0] > 1e-3).all() and (residuals[-1] < 1e-8).all()


@torch.no_grad()
def test_plain_iteration_passes_the_points_of_the_unrolled_network(strong, images):
    ours = strong("feedback.equilibrium", solver="iteration", tolerance=1e-15, steps=6)
    theirs = strong("feedback.gated", steps=6, norm="shared")
    x = images.double()
    torch.testing.assert_close(ours.backbone.forward_steps(x), theirs.backbone.forward_steps(x), rtol=1e-12, atol=1e-12)


def test_implicit_gradients_are_those_of_a_long_unrolling(strong, images):
    ours = strong("feedback.equilibrium", connections=CONNECTIONS, tolerance=1e-11, steps=60)
    long = strong("feedback.gated", connections=CONNECTIONS, steps=60, norm="shared")
    x = images[:2].double()
    long_grads = grads_of(long, x)
    assert far(grads_of(ours, x), long_grads) < 1e-7
    one_step = strong("feedback.gated", connections=CONNECTIONS, steps=2, norm="shared")
    assert far(grads_of(one_step, x), long_grads) > 1e-2


def test_implicit_gradients_are_finite_differences(strong, images):
    model = strong("feedback.equilibrium", connections=CONNECTIONS, tolerance=1e-12, steps=200)
    x = images[:2].double()
    weight = model.backbone.inner.body[1][0].weight
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (grad,) = torch.autograd.grad(model(x).sin().sum(), weight)

    def at(distance: float) -> float:
        with torch.no_grad():
            weight.add_(distance * direction)
            loss = model(x).sin().sum().item()
            weight.sub_(distance * direction)
        return loss

    assert (at(1e-5) - at(-1e-5)) / 2e-5 == pytest.approx((grad * direction).sum().item(), rel=1e-6)


def test_phantom_gradients_come_closer_with_every_step(strong, images):
    x = images[:2].double()
    exact = grads_of(strong("feedback.equilibrium", tolerance=1e-11, steps=100), x)
    options = {"gradient": "phantom", "tolerance": 1e-11, "steps": 100, "damping": 0.8}
    errors = [far(grads_of(strong("feedback.equilibrium", phantom_steps=k, **options), x), exact) for k in (1, 4, 25)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 1e-4


def test_unrolled_gradients_are_the_recurrent_network_s(strong, images):
    ours = strong("feedback.equilibrium", gradient="unrolled", steps=5, solver="broyden")
    theirs = strong("feedback.gated", steps=5, norm="shared")
    x = images[:2].double()
    assert far(grads_of(ours, x), grads_of(theirs, x)) < 1e-12


@pytest.mark.parametrize(("gradient", "flat"), [("implicit", True), ("phantom", True), ("unrolled", False)])
def test_what_training_keeps_does_not_grow_with_steps(strong, images, gradient, flat):
    def kept(steps: int) -> int:
        net = strong("feedback.equilibrium", gradient=gradient, steps=steps, tolerance=1e-14).backbone.train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            features = net(images.double())
        features.sum().backward()
        return sum(sizes)

    assert (kept(12) == kept(5)) if flat else (kept(12) > 2 * kept(5))


@torch.no_grad()
def test_an_image_s_answer_depends_on_no_other_image(strong, images):
    net = strong("feedback.equilibrium", 0.15, tolerance=1e-2).backbone
    x = images.double() * torch.tensor([0.1, 1, 3, 0.3, 10]).view(-1, 1, 1, 1)
    together = net.forward_steps(x)
    arrived = (net.residuals(x) < 1e-2).int().argmax(0)
    assert len(arrived.unique()) > 1  # they do not arrive together
    torch.testing.assert_close(net.forward_steps(x.flip(0)).flip(1), together, rtol=1e-10, atol=1e-10)
    alone = torch.cat([net.forward_steps(x[i : i + 1]) for i in range(5)], 1)
    torch.testing.assert_close(alone, together, rtol=1e-10, atol=1e-10)
    assert torch.equal(net.forward_steps(x), together)


@pytest.mark.parametrize("gradient", ["implicit", "phantom", "unrolled"])
def test_batch_normalisation_learns_once_a_pass_what_it_sees_at_the_fixed_point(strong, images, gradient):
    net = strong("feedback.equilibrium", gradient=gradient, steps=6).backbone.train()
    last = {}
    for module in (norms := [each for each in net.modules() if isinstance(each, torch.nn.BatchNorm2d)]):
        module.momentum = 1.0
        module.register_forward_hook(lambda module, inputs, _: last.update({module: inputs[0].detach()}))
    net(images.double())
    assert [int(norm.num_batches_tracked) for norm in norms] == [1, 1, 1]
    for norm in norms:
        torch.testing.assert_close(norm.running_mean, last[norm].mean((0, 2, 3)))


def test_the_jacobian_penalty_is_in_the_gradients_of_training_alone(strong, images):
    model = strong("feedback.equilibrium", 0.3, jacobian_penalty=100.0, steps=8)
    weight, x = model.backbone.paths[0].conv.weight, images.double()

    def norm() -> float:
        """|J|^2 / D, column by column of J'."""
        net = model.backbone
        with torch.no_grad():
            (state,) = [net.advance(x[:1], net.begin(x[:1]), 0)[1]]
        z = state.sources["layer3"].clone().requires_grad_()
        value = net.advance(x[:1], state._replace(sources={"layer3": z}), 1)[1].sources["layer3"].flatten()
        rows = [torch.autograd.grad(each, z, retain_graph=True)[0].square().sum() for each in value]
        return (sum(rows) / len(rows)).item()

    (plain,) = torch.autograd.grad(model(x).sum() * 0, weight)
    assert not plain.any()
    before = norm()
    for seed in range(5):
        torch.manual_seed(seed)
        model.backbone.train()
        for module in model.backbone.modules():
            module.training = module.training and not isinstance(module, torch.nn.BatchNorm2d)
        (grad,) = torch.autograd.grad(model(x).sum() * 0, weight)
        with torch.no_grad():
            weight.sub_(0.5 * grad / grad.norm())
    assert norm() < 0.7 * before


def test_it_trains_in_half_precision_and_computes_nothing_twice_for_it(made, images):
    net = made("feedback.equilibrium", solver="anderson").backbone.train()
    net.recompute = True
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = net(images).float().square().sum()
    loss.backward()
    assert all(path.conv.weight.grad.isfinite().all() and path.conv.weight.grad.any() for path in net.paths)


@torch.no_grad()
def test_a_tap_sees_every_step_and_what_it_changes_is_what_flows_on(strong, images):
    net = strong("feedback.equilibrium", connections="layer3>layer1", steps=7, tolerance=0.5).backbone
    seen = []

    def off(site: Site, value: Tensor) -> Tensor:
        seen.append(site)
        return torch.full_like(value, net.neutral) if site.name == "layer3>layer1" else value

    x = images.double()
    cut = net.forward_steps(x, off)
    assert torch.equal(cut, net.forward_steps(x)[:1].expand_as(cut))
    assert [site.step for site in seen if site.stage == 2] == list(range(7))
    assert [stage.shape[0] for stage in net.stage_steps(x)] == [7, 7, 7]
    net.equilibrium = type(net.equilibrium)(gradient="phantom", steps=7)
    with torch.enable_grad():
        assert [stage.shape[0] for stage in net.stage_steps(x)] == [7, 7, 7]


@torch.no_grad()
def test_a_recording_takes_a_plain_step_for_each_frame(strong, images):
    ours, theirs = strong("feedback.equilibrium"), strong("feedback.gated", norm="shared")
    frames = images.double().unflatten(0, (1, 5))
    assert torch.equal(ours.backbone.forward_steps(frames), theirs.backbone.forward_steps(frames))


def test_what_flies_away_is_reported_with_its_step(strong, images):
    net = strong("feedback.equilibrium", 1e80, combination="additive", solver="iteration").backbone
    with pytest.raises(TrialError, match=r"times those of its first step; got .* at step 2 of 20"):
        net(images.double())


def test_a_network_that_remembers_has_no_equilibrium(made):
    with pytest.raises(UserError, match="must be one without a memory of its own"):
        from engram.feedback.adapters.equilibrium import equilibrium
        from engram.feedback.options import EquilibriumOptions

        net = made(None).backbone
        net.remembers = True
        equilibrium(net, EquilibriumOptions())
