"""Linear equations with as many unknowns as features or as images, whichever are fewer, for many episodes at once."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_gram(rows: Tensor, shift: Tensor, right: Tensor) -> Tensor:
    """The solution X [E, F, K] of ``(A'A + s I) X = B``.

    With fewer rows than columns, ``(B - A' (A A' + s I)^-1 A B) / s`` (Woodbury).

    Args:
        rows: A [E, S, F].
        shift: s [E] or [], above zero.
        right: B [E, F, K].

    >>> rows, right = torch.eye(2)[None], torch.ones(1, 2, 1)
    >>> solve_gram(rows, torch.tensor(1.0), right).flatten().tolist()
    [0.5, 0.5]
    """
    shift = shift[..., None, None]
    if rows.shape[-2] < rows.shape[-1]:
        return (right - rows.mT @ _solve(rows @ rows.mT, shift, rows @ right)) / shift
    return _solve(rows.mT @ rows, shift, right)


def ridge(rows: Tensor, penalty: Tensor, targets: Tensor) -> Tensor:
    """The weights W [E, F, K] with the least ``|A W - Y|^2 + s |W|^2``.

    With fewer rows than columns, ``A' (A A' + s I)^-1 Y``.

    Args:
        rows: A [E, S, F].
        penalty: s [E] or [], above zero.
        targets: Y [E, S, K].

    >>> ridge(torch.tensor([[[1.0], [2.0]]]), torch.tensor(5.0), torch.tensor([[[2.0], [4.0]]])).item()
    1.0
    """
    penalty = penalty[..., None, None]
    if rows.shape[-2] < rows.shape[-1]:
        return rows.mT @ _solve(rows @ rows.mT, penalty, targets)
    return _solve(rows.mT @ rows, penalty, rows.mT @ targets)


def _solve(gram: Tensor, shift: Tensor, right: Tensor) -> Tensor:
    square = gram + shift * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor, _ = torch.linalg.cholesky_ex(square)  # does not wait for a GPU; what has no factor becomes NaN
    return torch.cholesky_solve(right, factor)
