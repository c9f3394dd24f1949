"""Successive halving as it comes: whoever reaches a rung goes on when among the best there so far."""

from __future__ import annotations

import math

from engram.backbone.contract import Direction
from engram.benchmarks.records.history import Rung


def goes_on(value: float, before: Rung, factor: int, direction: Direction) -> bool:
    """Whether a proposal with ``value`` at a rung goes on, ``before`` being the values of all that were there earlier.

    It does when it is among the best of ``factor``, or as good as the best while there are fewer than ``factor``. It is
    never looked at again: nobody waits at a rung, and the first ones go on more easily than later ones.

    >>> [goes_on(value, Rung([0.9, 0.8, 0.7]), 2, "max") for value in (0.95, 0.85, 0.75)]
    [True, True, False]

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning (arXiv 1810.05934), algorithm 2, without
    coming back to what was left behind, as Optuna's SuccessiveHalvingPruner has it.
    """
    if math.isnan(value):
        return False
    return before.better(value, direction) < max(1, (before.count + 1) // factor)
