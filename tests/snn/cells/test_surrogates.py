"""The spike and its surrogate derivatives, against closed forms and integrals."""

from __future__ import annotations

import math

import pytest
import torch

from engram.snn.neurons.surrogates import DERIVATIVES, spike

# What each derivative integrates to from minus infinity to x.
STEPS = {
    "arctan": lambda x, k: torch.atan(math.pi / 2 * k * x) / math.pi + 0.5,
    "fast-sigmoid": lambda x, k: 0.5 * (1 + k * x / (1 + k * x.abs())),
    "triangle": lambda x, k: 0.5 + (k * x - 0.5 * k * x * (k * x).abs()).clamp(-0.5, 0.5),
    "sigmoid": lambda x, k: torch.sigmoid(k * x),
    "superspike": lambda x, k: (1 + k * x / (1 + k * x.abs())) / k,
    "gaussian": lambda x, k: 0.5 * (1 + torch.erf(k * x / math.sqrt(2))),
}


def test_a_spike_is_the_step_function_and_the_threshold_itself_fires():
    d = torch.tensor([-1.0, -1e-30, -0.0, 0.0, 1e-30, 2.0, float("nan")])
    assert spike(d, "arctan", 2.0).tolist() == [0, 0, 1, 1, 1, 1, 0]
    assert spike(d.bfloat16(), "arctan", 2.0).dtype == torch.bfloat16


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize("k", [0.7, 4.0])
def test_the_derivative_is_that_of_the_closed_form(name, k):
    x = torch.linspace(-0.99 / k, 0.99 / k, 40, dtype=torch.float64, requires_grad=True)  # where a triangle is one
    (slope,) = torch.autograd.grad(STEPS[name](x, k).sum(), x)
    torch.testing.assert_close(DERIVATIVES[name](x.detach(), k), slope)


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize("k", [0.7, 4.0])
def test_the_area_under_the_derivative(name, k):
    """Over all distances: x = tan(y) brings them between -pi / 2 and pi / 2."""
    y = torch.linspace(-math.pi / 2 + 1e-9, math.pi / 2 - 1e-9, 2_000_001, dtype=torch.float64)
    area = torch.trapezoid(DERIVATIVES[name](torch.tan(y), k) / torch.cos(y).square(), y)
    assert area.item() == pytest.approx(2 / k if name == "superspike" else 1, abs=1e-4)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_backward_multiplies_by_the_derivative(name):
    d = torch.randn(50, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(50, dtype=torch.float64)
    (spike(d, name, 1.5) * weights).sum().backward()
    torch.testing.assert_close(d.grad, weights * DERIVATIVES[name](d.detach(), 1.5))
    assert DERIVATIVES[name](torch.zeros(()), 1.5) >= DERIVATIVES[name](torch.tensor(0.1), 1.5)
