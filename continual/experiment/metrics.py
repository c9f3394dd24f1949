"""From the accuracies on every task after every task to the figures the field compares."""

from __future__ import annotations

import math
from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]
"""``R[i][j]``: accuracy on task j once task i has been trained on; nan where it was not tested."""


def summary(matrix: Matrix, untrained: Sequence[float]) -> dict[str, float]:
    """Figures of a finished stream of T tasks; those about earlier tasks only where there are any.

    - ``average_accuracy``: mean over j of R[T, j].
    - ``average_incremental_accuracy``: mean over i of the mean over j <= i of R[i, j].
    - ``plasticity``: mean over j of R[j, j], each task just after it was learned.
    - ``forgetting``: mean over j < T of max over j <= i < T of R[i, j], minus R[T, j]; in [-1, 1], below 0 where the
      last task made the earlier ones better than they had ever been.
    - ``backward_transfer``: mean over j < T of R[T, j] - R[j, j].
    - ``forward_transfer``: mean over j > 1 of R[j - 1, j] - b[j], b being the accuracy of the untrained network.

    Args:
        matrix: T rows; row i needs tasks 0 to i, and i + 1 for the forward transfer.
        untrained: accuracy on every task before the first.

    Source: Lopez-Paz and Ranzato 2017 (arXiv 1706.08840), section 2; forgetting: Chaudhry et al. 2018 (arXiv
    1801.10112), section 3.

    >>> found = summary([[1.0, 0.5], [0.8, 0.9]], [0.5, 0.4])
    >>> {name: round(value, 3) for name, value in found.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'average_accuracy': 0.85, 'average_incremental_accuracy': 0.925, 'plasticity': 0.95, 'forgetting': 0.2,
     'backward_transfer': -0.2, 'forward_transfer': 0.1}
    """
    last = len(matrix) - 1
    found = {
        "average_accuracy": mean(matrix[last]),
        "average_incremental_accuracy": mean([mean(row[: i + 1]) for i, row in enumerate(matrix)]),
        "plasticity": mean([matrix[j][j] for j in range(last + 1)]),
    }
    if last > 0:
        earlier = range(last)
        found["forgetting"] = mean([max(matrix[i][j] for i in range(j, last)) - matrix[last][j] for j in earlier])
        found["backward_transfer"] = mean([matrix[last][j] - matrix[j][j] for j in earlier])
        ahead = [matrix[j - 1][j] - untrained[j] for j in range(1, last + 1)]
        if not any(math.isnan(value) for value in ahead):
            found["forward_transfer"] = mean(ahead)
    return found


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
