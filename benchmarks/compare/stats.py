"""Paired tests for a handful of seeds; without scipy.stats, which takes a second to import."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engram.backbone.contract import Bounds
from engram.backbone.measures.intervals import LEVEL, UNBOUNDED, Interval, interval

EXACT_UP_TO = 16  # 2^16 flips take milliseconds
DRAWS = 100_000


@dataclass(frozen=True)
class Paired:
    """``ours - theirs`` over the seeds both have, and the two-sided sign-flip p-value (None without a common seed)."""

    difference: Interval
    p: float | None
    seeds: tuple[int, ...]


def sign_flip(differences: Sequence[float], draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p-value of paired ``differences`` under random signs: exact up to 16 of them, sampled beyond.

    Sampled p-values count the observed arrangement too, (1 + hits) / (1 + draws), so none is ever zero.

    >>> sign_flip([1.0, 2.0, 3.0])
    0.25

    Source: Fisher, The Design of Experiments (1935), section 21; Phipson and Smyth, Permutation P-values Should Never
    Be Zero, Stat. Appl. Genet. Mol. Biol. 9 (2010), for the +1.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    observed = abs(float(values.sum()))
    # sums that are equal on paper may differ in their last bits, according to the order of addition
    threshold = observed - 1e-9 * float(np.abs(values).sum())
    if n <= EXACT_UP_TO:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ values) >= threshold))
    signs = np.random.default_rng(seed).integers(0, 2, size=(draws, n), dtype=np.int8) * 2 - 1
    hits = int(np.sum(np.abs(signs @ values) >= threshold))
    return (1 + hits) / (1 + draws)


def paired(ours: Mapping[int, float], theirs: Mapping[int, float], bounds: Bounds = UNBOUNDED) -> Paired:
    """Compare two methods seed by seed (seed -> score); seeds that only one of them has do not count.

    ``bounds`` are those of a score; where it has both, a difference has the bounds that follow.
    """
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    usable = seeds and all(map(math.isfinite, differences))
    low, high = bounds
    possible = UNBOUNDED if low is None or high is None else (low - high, high - low)
    return Paired(interval(differences, bounds=possible), sign_flip(differences) if usable else None, seeds)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for having made ``len(p_values)`` comparisons (family-wise error rate).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statist. 6 (1979).
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def seeds_needed(comparisons: int = 1, level: float = LEVEL) -> int:
    """The fewest seeds with which a sign-flip test, Holm-corrected, can fall to ``level``: its floor is 2 / 2^n.

    >>> seeds_needed(), seeds_needed(comparisons=3)
    (6, 7)
    """
    n = 1
    while comparisons * 2 / 2**n > level:
        n += 1
    return n


def verdict(n: int, adjusted_p: float | None, comparisons: int, level: float = LEVEL) -> str:
    """What the test allows to say, in words.

    >>> verdict(5, 0.0625, comparisons=1)
    'too few seeds (5 of 6)'
    """
    if adjusted_p is None:
        return "nothing to compare"
    needed = seeds_needed(comparisons, level)
    if n < needed:
        return f"too few seeds ({n} of {needed})"
    return "differs" if adjusted_p <= level else "no difference shown"
