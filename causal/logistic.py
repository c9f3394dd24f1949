"""Logistic regression of many classes, as a pure function of the data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def standardised(rows: Tensor, *others: Tensor) -> list[Tensor]:
    """Columns less their mean in units of their deviation, and a column of ones; others by the same numbers.

    rows: [N, F], others: [M, F] each -> [N, F + 1], [M, F + 1].
    """
    mean, deviation = rows.mean(0), rows.std(0).clamp(min=1e-9)
    return [F.pad((each - mean) / deviation, (0, 1), value=1.0) for each in (rows, *others)]


def regression(rows: Tensor, labels: Tensor, classes: int, decay: float, steps: int) -> Tensor:
    """The weights W [F, K] with about the least mean of ``CE(A W, y)`` and ``decay |W|^2``, by accelerated descent.

    Args:
        rows: A [N, F].
        labels: y [N] int64 in [0, K).
        classes: K.
        decay: above 0.
        steps: of the descent.

    Source: Beck and Teboulle 2009 (doi 10.1137/080716542), FISTA without its threshold; the step is one over a bound of
    the curvature, half the largest eigenvalue of A'A / N.
    """
    truth = F.one_hot(labels, classes).to(rows.dtype)
    bound = 0.5 * float(torch.linalg.eigvalsh(rows.T @ rows)[-1]) / len(rows) + 2 * decay
    weights = ahead = rows.new_zeros(rows.shape[1], classes)
    speed = 1.0
    for _ in range(steps):
        slope = rows.T @ ((rows @ ahead).softmax(1) - truth) / len(rows) + 2 * decay * ahead
        before, weights = weights, ahead - slope / bound
        faster = (1 + (1 + 4 * speed**2) ** 0.5) / 2
        ahead, speed = weights + (speed - 1) / faster * (weights - before), faster
    return weights
