"""Linear equations with a matrix of few rows, for many episodes at once."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_gram(rows: Tensor, shift: Tensor, right: Tensor) -> Tensor:
    """The solution X [E, F, K] of ``(rows' rows + shift I) X = right``.

    Where there are fewer rows than columns, a matrix of S by S is solved in place of one of F by F (Woodbury):
    ``(A'A + s I)^-1 b = (b - A' (A A' + s I)^-1 A b) / s``.

    Args:
        rows: A [E, S, F].
        shift: s [E] or [], above zero.
        right: [E, F, K].

    >>> rows, right = torch.eye(2)[None], torch.ones(1, 2, 1)
    >>> solve_gram(rows, torch.tensor(1.0), right).flatten().tolist()
    [0.5, 0.5]
    """
    shift = shift[..., None, None]
    if rows.shape[-2] < rows.shape[-1]:
        inner = _solve(rows @ rows.mT, shift, rows @ right)
        return (right - rows.mT @ inner) / shift
    return _solve(rows.mT @ rows, shift, right)


def _solve(gram: Tensor, shift: Tensor, right: Tensor) -> Tensor:
    square = gram + shift * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor, _ = torch.linalg.cholesky_ex(square)  # does not wait for a GPU; what has no factor becomes NaN
    return torch.cholesky_solve(right, factor)
