"""From answers to the figures by which few-shot class-incremental learning is compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """Fractions right after a session, among all classes met so far.

    ``accuracy`` is over the test images of all these classes, ``base`` and ``novel`` over those of base classes and of
    classes met later: ``novel`` is None in the base session.
    """

    accuracy: float
    base: float
    novel: float | None

    @property
    def harmonic(self) -> float | None:
        """2 b n / (b + n) of base and novel accuracy: low where either is, which the accuracy over all images hides.

        >>> Scores(0.75, 1.0, 0.5).harmonic, Scores(0.5, 1.0, 0.0).harmonic
        (0.6666666666666666, 0.0)
        """
        if self.novel is None:
            return None
        total = self.base + self.novel
        return 2 * self.base * self.novel / total if total else 0.0


def scores(answers: Tensor, labels: Tensor, base: Tensor) -> Scores:
    """Score the answers after one session.

    Args:
        answers: [N] int64 classes.
        labels: [N] int64 classes, all of them met by then.
        base: [B] int64, the base classes.
    """
    right, old = (answers == labels).double(), torch.isin(labels, base)
    novel = None if bool(old.all()) else right[~old].mean().item()
    return Scores(right.mean().item(), right[old].mean().item(), novel)


def summary(sessions: Sequence[Scores]) -> dict[str, float]:
    """The figures of all sessions A_0 ... A_S.

    - ``accuracy``, ``base_accuracy``, ``novel_accuracy``, ``harmonic_accuracy``: after the last session.
    - ``average_accuracy``: the mean of A_0 ... A_S.
    - ``accuracy_drop``: A_0 - A_S, in points.

    Source: Zhang et al. 2021 (arXiv 2104.03047); harmonic mean: see `Scores.harmonic`.

    >>> found = summary([Scores(0.9, 0.9, None), Scores(0.7, 0.8, 0.4)])
    >>> {name: round(value, 3) for name, value in found.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'accuracy': 0.7, 'average_accuracy': 0.8, 'accuracy_drop': 20.0, 'base_accuracy': 0.8, 'novel_accuracy': 0.4,
     'harmonic_accuracy': 0.533}
    """
    first, last = sessions[0], sessions[-1]
    assert last.novel is not None and last.harmonic is not None  # there is a session after the base session
    return {
        "accuracy": last.accuracy,
        "average_accuracy": math.fsum(each.accuracy for each in sessions) / len(sessions),
        "accuracy_drop": 100 * (first.accuracy - last.accuracy),
        "base_accuracy": last.base,
        "novel_accuracy": last.novel,
        "harmonic_accuracy": last.harmonic,
    }
