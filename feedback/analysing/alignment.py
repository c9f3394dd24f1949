"""How like the features of corrupted pictures are to those of the same pictures clean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 4
"""Pictures that a batch needs: fewer have no unbiased HSIC."""
SUMS = 6
"""Numbers that `sums` gives."""


def hsic(one: Tensor, other: Tensor) -> Tensor:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion of two Gram matrices, [n, n] each, n > 3.

    Source: Song et al. 2012, Feature Selection via Dependence Maximization, equation 5.
    """
    n = len(one)
    a, b = (gram.double() - gram.double().diagonal().diag() for gram in (one, other))
    rows, columns = a.sum(0), b.sum(0)
    found = (a * b).sum() + rows.sum() * columns.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows @ columns)
    return found / (n * (n - 3))


def sums(clean: Tensor, corrupted: Tensor) -> Tensor:
    """What a batch adds to the similarity of two sets of features, [B, ...] each, of the same B pictures.

    Returns: [6] float64 on the CPU: pictures; sums of cosines with the same picture clean, and with another one; and
    of both with each other, of the clean ones and of the corrupted ones the HSIC times pictures.
    """
    a, b = clean.flatten(1).float(), corrupted.flatten(1).float()
    same, others = F.cosine_similarity(a, b).sum(), F.cosine_similarity(a.roll(1, 0), b).sum()
    a, b = (each - each.mean(0) for each in (a, b))  # no HSIC changes, and nothing is lost to rounding
    k, m = a @ a.T, b @ b.T
    found = [same, others, *(len(a) * hsic(*pair) for pair in ((k, m), (k, k), (m, m)))]
    return torch.stack([torch.tensor(float(len(a)), dtype=torch.float64), *(each.double().cpu() for each in found)])


def similarity(total: Tensor) -> dict[str, float | None]:
    """The similarity that sums of `sums` come to.

    ``cosine`` is the mean over pictures of that with the same picture clean, ``cosine_others`` with another picture,
    and ``cka`` linear centred kernel alignment from unbiased estimates over batches; None where a stage gives the same
    for every picture.

    Source: Kornblith et al. 2019 (arXiv 1905.00414); over batches Nguyen et al. 2021 (arXiv 2010.15327).
    """
    images, same, others, both, clean, corrupted = total.tolist()
    scale = max(clean, 0.0) * max(corrupted, 0.0)
    return {
        "cka": both / scale**0.5 if scale else None,
        "cosine": same / images,
        "cosine_others": others / images,
    }
