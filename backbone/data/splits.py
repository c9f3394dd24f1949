"""Splitting a set in two, the same way on every machine, whatever the trial's seed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.lots import mixed


def stratified(labels: Tensor, fraction: float, salt: int) -> tuple[Tensor, Tensor]:
    """Hold out ``fraction`` of the images, of every class as nearly as whole images allow.

    The held-out share has ``round(fraction * N)`` images: every class gives the whole part of its own share, and the
    classes with the largest remainders give one more. A class keeps at least one image. The choice depends on the
    positions and labels alone; different ``salt`` gives independent choices.

    Args:
        labels: ``[N] int64``, at least 0.
        fraction: in [0, 1).
        salt: which of the possible choices.

    Returns:
        Positions kept and positions held out, each ascending ``int64``; together every position once.

    >>> kept, held = stratified(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), 0.25, salt=1)
    >>> len(kept), len(held), sorted(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])[held].tolist())
    (6, 2, [0, 1])
    """
    classes = labels.numpy()
    counts = np.bincount(classes)
    quota = _quota(counts, fraction)
    order = np.lexsort((_scrambled(len(classes), salt), classes))  # by class, within a class by chance
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(classes)) - starts[classes[order]]
    held = np.zeros(len(classes), bool)
    held[order] = rank < quota[classes[order]]
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))


def dealt(classes: int, fraction: float, salt: int) -> tuple[Tensor, Tensor]:
    """Hold out ``round(fraction * classes)`` whole classes, at least two, whichever images they have.

    Returns:
        Classes kept and classes held out, each ascending ``int64``.

    >>> kept, held = dealt(10, 0.2, salt=1)
    >>> len(kept), len(held)
    (8, 2)
    """
    order = torch.from_numpy(np.argsort(_scrambled(classes, salt), kind="stable"))
    count = max(2, int(np.floor(classes * fraction + 0.5)))
    return order[count:].sort().values, order[:count].sort().values


def _quota(counts: np.ndarray, fraction: float) -> np.ndarray:
    """How many images each class gives, by the method of largest remainders."""
    share = counts * fraction
    ceiling = np.maximum(counts - 1, 0)
    quota = np.minimum(np.floor(share).astype(np.int64), ceiling)
    missing = int(np.floor(counts.sum() * fraction + 0.5)) - int(quota.sum())
    remainder = np.where(quota < ceiling, share - quota, -1.0)
    for name in np.argsort(-remainder, kind="stable")[: max(missing, 0)]:
        quota[name] += remainder[name] > 0
    return quota


def _scrambled(count: int, salt: int) -> np.ndarray:
    """A number for each position that looks random and never changes with a library's version."""
    return mixed(np.arange(1, count + 1, dtype=np.uint64) + np.uint64(salt << 32))
