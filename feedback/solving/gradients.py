"""Gradients at a fixed point, and a penalty for functions that draw points together too slowly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from engram.backbone.errors import TrialError
from engram.backbone.ranks import part
from engram.feedback.solving.fixed_point import Search, search

Injection = Callable[[Sequence[Tensor]], Tensor]
"""From the gradients of outputs to that of the value at the fixed point."""


class _Injected(torch.autograd.Function):
    """Outputs as they are; on the way back ``value`` is given a gradient that is computed from all of theirs."""

    @staticmethod
    def forward(ctx: Any, injection: Injection, value: Tensor, *outputs: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        ctx.injection = injection
        return tuple(output.view_as(output) for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return (None, ctx.injection(grads), *grads)


def implicit(z: Tensor, value: Tensor, outputs: Sequence[Tensor], how: Search) -> tuple[Tensor, ...]:
    """Outputs of a step from a fixed point, whose gradients go through the fixed point as well.

    With outputs o(z, w) and z = f(z, w) of weights w, the gradient of a loss L is

        dL/dw = dL/do do/dw + u df/dw,  u = u J + dL/do do/dz,  J = df/dz

    and u is looked for as the fixed point was. What is kept for it is one evaluation of the function, however many the
    search took.

    Args:
        z: [B, D] the fixed point, a leaf that requires a gradient.
        value: [B, D] f(z), which has arrived at z.
        outputs: what else has been computed from z, ``value`` among them if anybody will use it.
        how: how u is looked for.

    Raises:
        TrialError: while the gradient is computed, where u is not finite.

    Source: Bai, Kolter, Koltun 2019 (arXiv 1909.01377), theorem 1.
    """
    outputs = tuple(outputs)

    def injection(grads: Sequence[Tensor]) -> Tensor:
        direct = _pulled(outputs, z, grads)
        found = search(lambda u: _pulled((value,), z, (u.to(value.dtype),)) + direct, direct, how)
        if not bool(found.z.isfinite().all()):
            raise TrialError(
                f"the gradient of an equilibrium must be finite; got nan or inf by iteration {len(found.residuals)} of"
                f" {how.most}. Raise --adapter.jacobian-penalty, or use --adapter.gradient phantom."
            )
        return found.z.to(value.dtype)

    return _Injected.apply(injection, value, *outputs)


def _pulled(outputs: Sequence[Tensor], z: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """The gradient at z of outputs that have these, [B, D]; the graph stays."""
    (made,) = torch.autograd.grad(outputs, z, grads, retain_graph=True, allow_unused=True)
    return torch.zeros_like(z) if made is None else made


def squared_norm(z: Tensor, value: Tensor) -> Tensor:
    """An estimate of |J|_F^2 / D of J = df/dz, the mean over images: [], differentiable.

        |J|_F^2 = E |e' J|^2  with e normal

    z: [B, D] requires a gradient; value: [B, D] f(z). One draw for each image, from torch's generator.

    Source: Bai, Koltun, Kolter 2021 (arXiv 2106.14342), equation 4 (Hutchinson 1989).
    """
    (row,) = torch.autograd.grad(value, z, torch.randn_like(value), create_graph=True)
    return row.square().mean()


class _Added(torch.autograd.Function):
    """A value as it is; on the way back a term of the loss is given the gradient 1, of processes that share a batch
    each its part.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, term: Tensor) -> Tensor:  # type: ignore[override]
        ctx.term_like, ctx.part = term.detach(), part()
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return grad, torch.full_like(ctx.term_like, ctx.part)


def with_term(value: Tensor, term: Tensor) -> Tensor:
    """The value, behind which whatever loss is minimised has ``term`` added: in gradients, not in what it says it is.

    value: [...]; term: [], a mean over images.
    """
    return _Added.apply(value, term)
