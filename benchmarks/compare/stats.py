"""Paired tests for a handful of seeds; without scipy.stats, which takes a second to import."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engram.backbone.contract import Bounds
from engram.backbone.measures.intervals import LEVEL, UNBOUNDED, Interval, interval

EXACT_UP_TO = 16  # 2^16 flips take milliseconds
DRAWS = 100_000
_AT_ONCE = 64
"""Tests that are worked out together, with as many signs as there are then room for."""
_ROWS = 4096
Floats = NDArray[np.float64]


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
    return sign_flips([differences], draws, seed)[0]


def sign_flips(tests: Sequence[Sequence[float]], draws: int = DRAWS, seed: int = 0) -> list[float]:
    """`sign_flip` of each of several tests: those of as many differences share their signs."""
    alike: dict[int, list[int]] = {}
    for place, differences in enumerate(tests):
        alike.setdefault(len(differences), []).append(place)
    found = [0.0] * len(tests)
    for n, places in alike.items():
        for part in (places[first : first + _AT_ONCE] for first in range(0, len(places), _AT_ONCE)):
            values = np.array([tests[place] for place in part], dtype=np.float64).reshape(len(part), n)
            observed = np.abs([float(each.sum()) for each in values])
            # sums that are equal on paper may differ in their last bits, according to the order of addition
            thresholds = observed - 1e-9 * np.abs(values).sum(1)
            total, hits = 0, np.zeros(len(part))
            for signs in _all_signs(n) if n <= EXACT_UP_TO else _drawn_signs(n, draws, seed):
                total, hits = total + len(signs), hits + (np.abs(signs @ values.T) >= thresholds).sum(0)
            drawn = 0 if n <= EXACT_UP_TO else 1
            for place, count in zip(part, hits.tolist(), strict=True):
                found[place] = (drawn + count) / (drawn + total)
    return found


def _all_signs(n: int) -> Iterator[Floats]:
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    yield (1 - 2 * bits).astype(np.float64)


def _drawn_signs(n: int, draws: int, seed: int) -> Iterator[Floats]:
    """``[rows, n]`` at a time: rows a multiple of 4, so that all are those of one draw of ``[draws, n]``."""
    rng = np.random.default_rng(seed)
    for first in range(0, draws, _ROWS):
        drawn = rng.integers(0, 2, size=(min(_ROWS, draws - first), n), dtype=np.int8)
        yield drawn.astype(np.float64) * 2 - 1


def paired(ours: Mapping[int, float], theirs: Mapping[int, float], bounds: Bounds = UNBOUNDED) -> Paired:
    """Compare two methods seed by seed (seed -> score); seeds that only one of them has do not count.

    ``bounds`` are those of a score; where it has both, a difference has the bounds that follow.
    """
    return all_paired([(ours, theirs)], bounds)[0]


def all_paired(
    couples: Sequence[tuple[Mapping[int, float], Mapping[int, float]]], bounds: Bounds = UNBOUNDED
) -> list[Paired]:
    """`paired` of each of several couples."""
    low, high = bounds
    possible = UNBOUNDED if low is None or high is None else (low - high, high - low)
    seeds = [tuple(sorted(ours.keys() & theirs.keys())) for ours, theirs in couples]
    differences = [
        [ours[seed] - theirs[seed] for seed in common] for (ours, theirs), common in zip(couples, seeds, strict=True)
    ]
    usable = [place for place, each in enumerate(differences) if each and all(map(math.isfinite, each))]
    p_values = dict(zip(usable, sign_flips([differences[place] for place in usable]), strict=True))
    return [
        Paired(interval(each, bounds=possible), p_values.get(place), seeds[place])
        for place, each in enumerate(differences)
    ]


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
