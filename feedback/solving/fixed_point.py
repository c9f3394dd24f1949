"""The search for a fixed point, for every image of a batch by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.backbone.hardware import exactly
from engram.feedback.solving.rules import RuleName, rule


@dataclass(frozen=True)
class Search:
    """How a fixed point is looked for.

    Attributes:
        rule: which point is looked at next.
        tolerance: largest relative residual |f(z) - z| / |f(z)| of an image that has arrived.
        most: evaluations of the function after which the search ends, at least 0.
    """

    rule: RuleName
    tolerance: float
    most: int


@dataclass(frozen=True)
class Found:
    """Where a search has arrived.

    Attributes:
        z: [B, D]. Images that have not arrived are where the search would have looked next.
        residuals: [K, B], the relative residual of every image at every evaluation. K is less than ``Search.most``
            where all images arrived before.
        arrived: [B] bool.
    """

    z: Tensor
    residuals: Tensor
    arrived: Tensor


def relative_residual(z: Tensor, fz: Tensor) -> Tensor:
    """|f(z) - z| / |f(z)| of every image, [B]; 0 where both are 0. z, fz: [B, D]."""
    return (fz - z).norm(dim=1) / fz.norm(dim=1).clamp_min(torch.finfo(fz.dtype).tiny)


@torch.no_grad()
def search(f: Callable[[Tensor], Tensor], z: Tensor, how: Search, whole: bool = False) -> Found:
    """Look for z = f(z), without gradients.

    An image that has arrived stays where it is, whatever others in the batch do: where ``f`` treats images apart, what
    is found for one depends on no other. The function is evaluated for all of them until the last one has arrived.
    In half precision an image has arrived once its residual is that of rounding, if the tolerance is less.

    Args:
        f: [B, D] -> [B, D]; it may run under autocast.
        z: [B, D] where the search begins.
        whole: evaluate the function ``how.most`` times, also when all have arrived.
    """
    guess = rule(how.rule)
    arrived = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    residuals: list[Tensor] = []
    for _ in range(how.most):
        value = f(z)
        with exactly(z):
            tolerance = max(how.tolerance, torch.finfo(value.dtype).eps / 2)
            fz = value.to(z.dtype)
            residuals.append(relative_residual(z, fz))
            near = residuals[-1] <= tolerance
            ahead = torch.where(near[:, None], fz, guess.next(z, fz))
            z = torch.where(arrived[:, None], z, ahead)
        arrived = arrived | near
        if not whole and bool(arrived.all()):
            break
    shape = torch.stack(residuals) if residuals else z.new_empty(0, len(z))
    return Found(z, shape, arrived)
