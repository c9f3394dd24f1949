"""Fixed points and their gradients, against closed forms, long iteration and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.backbone.errors import TrialError
from engram.feedback.solving.fixed_point import Search, relative_residual, search
from engram.feedback.solving.gradients import implicit, squared_norm, with_term
from engram.feedback.solving.rules import ANDERSON_MEMORY, BROYDEN_MEMORY, RuleName, mixing_weights

RULES: tuple[RuleName, ...] = ("iteration", "anderson", "broyden")


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def affine(size: int, batch: int, radius: float) -> tuple[Tensor, Tensor]:
    """Matrices [B, D, D] of that spectral radius, and shifts [B, D]."""
    matrix = random(0, batch, size, size)
    return matrix * (radius / torch.linalg.eigvals(matrix).abs().amax(1))[:, None, None], random(1, batch, size)


def times(matrix: Tensor, z: Tensor) -> Tensor:
    return (matrix @ z[..., None]).squeeze(-1)


@pytest.mark.parametrize("rule", RULES)
def test_the_fixed_point_of_affine_maps_is_the_solution_of_their_equations(rule: RuleName):
    matrix, shift = affine(12, 5, 0.7)
    expected = torch.linalg.solve(torch.eye(12, dtype=torch.float64) - matrix, shift)
    found = search(lambda z: times(matrix, z) + shift, torch.zeros_like(shift), Search(rule, 1e-10, 200))
    assert found.arrived.all() and len(found.residuals) < 200
    torch.testing.assert_close(found.z, expected, rtol=1e-8, atol=1e-8)
    assert (found.residuals[-1] <= 1e-10).all() and (found.residuals[0] > 1e-3).all()


def test_accelerated_searches_take_fewer_evaluations_and_arrive_where_iteration_flies_away():
    matrix, shift = affine(12, 5, 0.95)
    counts = [len(search(lambda z: times(matrix, z) + shift, shift, Search(r, 1e-8, 900)).residuals) for r in RULES]
    assert counts[1] < counts[0] / 2 and counts[2] < counts[0] / 2
    matrix, shift = affine(6, 3, 1.5)
    away, *arrived = (search(lambda z: times(matrix, z) + shift, shift, Search(r, 1e-8, 60)) for r in RULES)
    assert not away.arrived.any()
    assert all(found.arrived.all() for found in arrived)


@pytest.mark.parametrize("rule", RULES)
def test_an_image_finds_the_same_point_whatever_its_batch_is(rule: RuleName):
    matrix, shift = affine(8, 6, 0.8)
    matrix = matrix * torch.linspace(0.05, 1.0, 6, dtype=torch.float64)[:, None, None]  # some arrive much sooner
    how = Search(rule, 1e-6, 100)
    together = search(lambda z: times(matrix, z) + shift, torch.zeros_like(shift), how)
    for row in range(6):
        one = slice(row, row + 1)
        alone = search(lambda z, one=one: times(matrix[one], z) + shift[one], torch.zeros_like(shift[one]), how)
        torch.testing.assert_close(alone.z, together.z[one], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(alone.residuals[:, 0], together.residuals[: len(alone.residuals), row])


@pytest.mark.parametrize("rule", RULES)
def test_a_constant_is_its_own_fixed_point_after_one_evaluation(rule: RuleName):
    shift = random(3, 4, 7)
    found = search(lambda z: shift, shift, Search(rule, 1e-6, 50))
    assert found.z.equal(shift) and len(found.residuals) == 1
    found = search(lambda z: torch.zeros_like(z), torch.zeros(4, 7), Search(rule, 1e-6, 50))
    assert found.arrived.all() and not found.residuals.any()


def test_mixing_weights_are_the_least_squares_ones_and_survive_equations_without_one_solution():
    residuals = random(5, 3, 4, 20)
    gram = residuals @ residuals.mT
    weights = mixing_weights(gram)
    shortest = torch.linalg.solve(gram, torch.ones(3, 4, 1, dtype=torch.float64)).squeeze(-1)
    torch.testing.assert_close(weights, shortest / shortest.sum(1, keepdim=True))
    one = residuals[:, :1]
    alike = torch.cat([one, one, 3 * one, one], 1)  # multiples of each other
    weights = mixing_weights((alike @ alike.mT).float())
    assert weights.isfinite().all() and weights.abs().amax() < 10
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))
    assert ((weights[:, None] @ alike).norm(dim=2) <= one.norm(dim=2)).all()
    alike[:, 2] = 0  # arrived: it has all the weight
    torch.testing.assert_close(mixing_weights(alike @ alike.mT)[:, 2], torch.ones(3, dtype=torch.float64))
    assert mixing_weights(torch.zeros(2, 3, 3)).isfinite().all()


@pytest.mark.parametrize("rule", ["anderson", "broyden"])
def test_searches_go_on_beyond_their_memory(rule: RuleName):
    matrix, shift = affine(60, 2, 0.98)
    found = search(lambda z: times(matrix, z) + shift, shift, Search(rule, 1e-7, 2000))
    assert found.arrived.all() and len(found.residuals) > max(ANDERSON_MEMORY, BROYDEN_MEMORY)


def test_what_is_no_number_never_arrives():
    def f(z: Tensor) -> Tensor:
        return torch.where(torch.tensor([[False], [True]]), torch.nan, 0.5 * z + 1)

    for rule in RULES:
        found = search(f, torch.zeros(2, 3), Search(rule, 1e-4, 30))
        assert found.arrived.tolist() == [True, False] and not found.residuals[:, 1].isfinite().any()
        torch.testing.assert_close(found.z[0], torch.full((3,), 2.0), rtol=1e-3, atol=1e-3)


def test_a_search_in_half_precision_ends_at_what_rounding_leaves():
    weight = 0.3 * random(7, 16, 16).float() / 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = search(lambda z: (z @ weight).tanh() + 1, torch.zeros(3, 16), Search("anderson", 1e-7, 40))
    assert found.arrived.all() and found.z.dtype == torch.float32


def nonlinear(z: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return torch.tanh(z @ weight + x)


def loss_of(z: Tensor, x: Tensor, weight: Tensor, how: Search, back: Search) -> Tensor:
    """A loss of outputs that depend on the fixed point, on the next value and on the weights themselves."""
    z = search(lambda at: nonlinear(at, x, weight), z, how).z.requires_grad_()
    value = nonlinear(z, x, weight)
    output = value.sin() * x + z @ weight.T
    (output,) = implicit(z, value, [output], back)
    return output.square().sum()


@pytest.mark.parametrize("rule", RULES)
def test_implicit_gradients_are_those_of_a_long_unrolling_and_finite_differences(rule: RuleName):
    weight = (0.2 * random(11, 4, 4)).requires_grad_()
    x, start = random(12, 2, 4).requires_grad_(), torch.zeros(2, 4, dtype=torch.float64)
    precise = Search(rule, 1e-12, 100)
    grads = torch.autograd.grad(loss_of(start, x, weight, precise, precise), (x, weight))
    z = start
    for _ in range(60):
        z = nonlinear(z, x, weight)
    unrolled = (nonlinear(z, x, weight).sin() * x + z @ weight.T).square().sum()
    for ours, theirs in zip(grads, torch.autograd.grad(unrolled, (x, weight)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    if rule == "anderson":
        assert torch.autograd.gradcheck(lambda x, w: loss_of(start, x, w, precise, precise), (x, weight))


def test_a_gradient_that_flies_away_is_an_error():
    weight = 40 * torch.eye(4)
    z = torch.zeros(2, 4, requires_grad=True)
    (output,) = implicit(z, z @ weight, [z.sum(1)], Search("iteration", 1e-6, 80))
    with pytest.raises(TrialError, match="the gradient of an equilibrium must be finite"):
        output.sum().backward()


def test_the_penalty_estimates_the_squared_norm_of_the_jacobian():
    torch.manual_seed(0)
    weight = random(21, 5, 5).requires_grad_()
    z = random(22, 4000, 5).requires_grad_()
    estimate = squared_norm(z, z @ weight)
    assert abs(estimate.item() / (weight.square().sum().item() / 5) - 1) < 0.05
    (grad,) = torch.autograd.grad(estimate, weight)
    assert torch.nn.functional.cosine_similarity(grad.flatten(), weight.flatten(), dim=0) > 0.99


def test_a_term_behind_a_value_is_in_the_gradients_of_any_loss():
    value, weight = torch.ones(3, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    loss = with_term(value, weight.square()).sum() * 7
    loss.backward()
    assert loss.item() == 21 and weight.grad == 4 and value.grad.tolist() == [7, 7, 7]  # type: ignore[union-attr]


def test_residuals_are_relative():
    assert relative_residual(torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([[2.0, 0], [0, 0]])).tolist() == [0.5, 0]
