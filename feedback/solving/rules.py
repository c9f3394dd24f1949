"""Where a search for a fixed point looks next: plain iteration, Anderson's mixing, Broyden's method.

A rule is a value of one search. It is told of every point and what the function made of it, in turn, and every image
has a search of its own: nothing is summed over images.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

RuleName = Literal["iteration", "anderson", "broyden"]
ANDERSON_MEMORY = 5
"""Points that Anderson's mixing mixes."""
BROYDEN_MEMORY = 16
"""Updates that Broyden's method remembers; with the next one it begins again."""
REGULARISATION = 100
"""Share of a mixed residual's own length that Anderson's mixing pays for using it, in units of rounding."""


class Rule(Protocol):
    """A search, one point after another."""

    def next(self, z: Tensor, fz: Tensor) -> Tensor:
        """The point to look at next.

        Args:
            z: [B, D] the points looked at, one for each image.
            fz: [B, D] the function's values there.

        Returns: [B, D].
        """
        ...


class Iteration:
    """The function's value is the next point. It arrives where the function draws points together."""

    def next(self, z: Tensor, fz: Tensor) -> Tensor:
        """z, fz: [B, D] -> [B, D]."""
        return fz


class Anderson:
    """The mixture of the last values whose residuals, mixed alike, are the shortest.

        z' = sum_i a_i f(z_i)  with  a = argmin |sum_i a_i g_i|^2 + r sum_i a_i^2 |g_i|^2,  sum_i a_i = 1,
        g_i = f(z_i) - z_i

    The second term keeps the equations solvable where residuals are multiples of each other or 0, whatever their
    scale: a residual of 0 takes the whole weight.

    Source: Walker and Ni 2011, "Anderson acceleration for fixed-point iterations", section 2, with the penalty r.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._values = self._residuals = self._gram = torch.empty(0)

    def next(self, z: Tensor, fz: Tensor) -> Tensor:
        """z, fz: [B, D] -> [B, D]."""
        if self._seen == 0:
            self._values = z.new_empty(len(z), ANDERSON_MEMORY, z.shape[1])
            self._residuals = torch.zeros_like(self._values)
            self._gram = z.new_zeros(len(z), ANDERSON_MEMORY, ANDERSON_MEMORY)
        place = self._seen % ANDERSON_MEMORY
        self._seen += 1
        self._values[:, place], self._residuals[:, place] = fz, fz - z
        products = (self._residuals @ self._residuals[:, place, :, None]).squeeze(-1)
        self._gram[:, place], self._gram[:, :, place] = products, products
        known = min(self._seen, ANDERSON_MEMORY)
        weights = mixing_weights(self._gram[:, :known, :known]).to(z.dtype)
        return (weights[:, None] @ self._values[:, :known]).squeeze(1)


def mixing_weights(gram: Tensor) -> Tensor:
    """The weights of `Anderson`, [B, n] float64 with the sum 1.

    gram: [B, n, n] the products g_i . g_j of the residuals.
    """
    rounding = torch.finfo(gram.dtype).eps
    gram = gram.double()
    lengths = gram.diagonal(dim1=1, dim2=2).clamp_min(1e-60).sqrt()
    alike = gram / (lengths[:, :, None] * lengths[:, None])
    alike.diagonal(dim1=1, dim2=2).add_(REGULARISATION * rounding)
    solution, _ = torch.linalg.solve_ex(alike, lengths.reciprocal()[..., None])  # does not wait for a GPU
    weights = solution.squeeze(-1) / lengths
    return weights / weights.sum(1, keepdim=True)


class Broyden:
    """Newton's method for g(z) = f(z) - z with an inverse Jacobian that is learned on the way.

        z' = z - H g(z),  H = -I + sum_i u_i v_i',  u = (s - H y) / (s'H y),  v = H's
        with s and y the last change of z and of g

    The first step is that of plain iteration. An update whose divisor vanishes is left out.

    Source: Broyden 1965, "A class of methods for solving nonlinear simultaneous equations", the first method.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, Tensor] | None = None
        self._left: list[Tensor] = []
        self._right: list[Tensor] = []

    def next(self, z: Tensor, fz: Tensor) -> Tensor:
        """z, fz: [B, D] -> [B, D]."""
        g = fz - z
        if self._last is not None:
            if len(self._left) == BROYDEN_MEMORY:
                self._left, self._right = [], []
            self._learn(z - self._last[0], g - self._last[1])
        self._last = (z, g)
        return z - self._inverse(g, self._left, self._right)

    def _learn(self, s: Tensor, y: Tensor) -> None:
        hy, v = self._inverse(y, self._left, self._right), self._inverse(s, self._right, self._left)
        divisor = (s * hy).sum(1, keepdim=True)
        least = torch.finfo(s.dtype).eps * s.norm(dim=1, keepdim=True) * hy.norm(dim=1, keepdim=True)
        fine = divisor.abs() > least
        self._left.append(torch.where(fine, s - hy, 0.0) / torch.where(fine, divisor, 1.0))
        self._right.append(v)

    @staticmethod
    def _inverse(value: Tensor, left: list[Tensor], right: list[Tensor]) -> Tensor:
        """(-I + sum_i left_i right_i') value, [B, D]."""
        made = -value
        for u, v in zip(left, right, strict=True):
            made = made + u * (v * value).sum(1, keepdim=True)
        return made


_RULES: dict[RuleName, type[Iteration] | type[Anderson] | type[Broyden]] = {
    "iteration": Iteration,
    "anderson": Anderson,
    "broyden": Broyden,
}


def rule(name: RuleName) -> Rule:
    """A new search by a rule's name."""
    return _RULES[name]()
