"""Statistics of methods over many tasks, of plain arrays; without scipy.stats, which takes a second to import.

A method's ``tasks`` are the scores of its runs on each task, one array a task. Intervals are of a stratified bootstrap:
runs are drawn anew within every task, so that they are about other seeds of the same tasks and not about other tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, fdtrc, ndtr

from engram.backbone.measures.intervals import LEVEL, Interval

Floats = NDArray[np.float64]
DRAWS = 2000


def interquartile_mean(scores: Floats) -> Floats:
    """The mean of the middle half along the last axis: a quarter of the values, rounded down, is cut at either end.

    >>> interquartile_mean(np.array([0.0, 1.0, 2.0, 30.0])).item()
    1.5

    Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021.
    """
    cut = scores.shape[-1] // 4
    return np.sort(scores, axis=-1)[..., cut : scores.shape[-1] - cut].mean(-1)


def redrawn(tasks: Sequence[Floats], rng: np.random.Generator, draws: int = DRAWS) -> list[Floats]:
    """``draws`` bootstrap samples of the runs on each task: ``[draws, runs - 1]`` a task (``[draws, 1]`` of one run).

    One run fewer than there are is drawn, so that the variance of a mean is right for few runs as well: as many draws
    as runs make it too small by a factor of (runs - 1) / runs, two thirds at three.

    Source: Rao and Wu, Resampling Inference with Complex Survey Data, J. Am. Stat. Assoc. 83 (1988).
    """
    return [runs[rng.integers(0, len(runs), (draws, max(len(runs) - 1, 1)))] for runs in tasks]


def bootstrapped(value: float, drawn: Floats, n: int) -> Interval:
    """The 95 % percentile interval of a value, which it always holds; ``n`` runs in all."""
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    return Interval(value, min(float(low), value), max(float(high), value), n)


def typical(tasks: Sequence[Floats], rng: np.random.Generator) -> Interval:
    """The interquartile mean of the runs on all tasks, which must be scores on one scale."""
    return _of_all(tasks, rng, lambda held: interquartile_mean(np.concatenate(held, axis=-1)))


def _of_all(tasks: Sequence[Floats], rng: np.random.Generator, of: Callable[[Sequence[Floats]], Floats]) -> Interval:
    n = sum(map(len, tasks))
    value = float(of(tasks))
    if min(map(len, tasks)) < 2:
        return Interval(value, None, None, n)
    return bootstrapped(value, of(redrawn(tasks, rng)), n)


def share_above(ours: Floats, theirs: Floats) -> Floats:
    """How often a run of ours is above one of theirs, ties as a half: Mann and Whitney's U over the number of pairs.

    Both may have axes before the last, which are the same.

    >>> share_above(np.array([1.0, 2.0]), np.array([1.0, 1.0])).item()
    0.75
    """
    signs = np.sign(ours[..., :, None] - theirs[..., None, :])
    return (signs.mean((-2, -1)) + 1) / 2


def improvement(ours: Sequence[Floats], theirs: Sequence[Floats], rng: np.random.Generator) -> Interval:
    """How probable it is that a run of ours is above one of theirs on the same task, the mean over tasks.

    Source: Agarwal et al. 2021, section 4.3.
    """

    def of(pairs: Sequence[tuple[Floats, Floats]]) -> Floats:
        return np.stack([share_above(*pair) for pair in pairs]).mean(0)

    value, n = float(of([*zip(ours, theirs, strict=True)])), min(sum(map(len, ours)), sum(map(len, theirs)))
    if min(map(len, (*ours, *theirs))) < 2:
        return Interval(value, None, None, n)
    return bootstrapped(value, of([*zip(redrawn(ours, rng), redrawn(theirs, rng), strict=True)]), n)


def profile(tasks: Sequence[Floats], at: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """The share of runs that score ``at`` least so much, the mean over tasks, and its band point by point.

    Source: Agarwal et al. 2021, section 4.2 (score distributions).
    """

    def shares(held: Sequence[Floats]) -> Floats:
        return np.stack([(runs[..., None, :] >= at[:, None]).mean(-1) for runs in held]).mean(0)

    found = shares(tasks)
    if min(map(len, tasks)) < 2:
        return found, found, found
    low, high = np.quantile(shares(redrawn(tasks, rng, DRAWS // 4)), [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    return found, np.minimum(low, found), np.maximum(high, found)


def ratios(costs: Floats) -> Floats:
    """Costs, ``[methods, tasks]``, all above 0, over the least cost of each task: what ratio profiles are made of.

    Source: Dolan and More, Benchmarking Optimization Software with Performance Profiles, Math. Program. 91 (2002).
    """
    return costs / costs.min(0)


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of methods over tasks, 1 for the best; ties have the mean of their ranks.

    ``statistic`` and ``p`` are Friedman's, ``f_p`` the p-value after Iman and Davenport, and ``distance`` Nemenyi's
    critical difference: of two methods whose mean ranks are as far apart, the test says that they differ.
    """

    means: tuple[float, ...]
    tasks: int
    statistic: float
    p: float
    f_p: float
    distance: float


def ranked(scores: Floats) -> Ranks:
    """Ranks of methods on tasks, the highest score first; ``scores``: ``[methods, tasks]``, two of each at least.

    Source: Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006); Friedman, JASA 32
    (1937), with the correction for ties; Iman and Davenport, Commun. Stat. 9 (1980).
    """
    k, n = scores.shape
    above = (scores[None, :, :] > scores[:, None, :]).sum(1)
    equal = (scores[None, :, :] == scores[:, None, :]).sum(1)
    ranks = above + (equal + 1) / 2
    ties = 1 - (equal**2 - 1).sum() / (n * k * (k * k - 1))
    if ties <= 0:  # all methods are equal on all tasks
        return Ranks(tuple(ranks.mean(1).tolist()), n, 0.0, 1.0, 1.0, critical_difference(k, n))
    statistic = float((12 * n / (k * (k + 1)) * ((ranks.mean(1) - (k + 1) / 2) ** 2).sum()) / ties)
    most = n * (k - 1)
    f = np.inf if statistic >= most * (1 - 1e-12) else (n - 1) * statistic / (most - statistic)
    f_p = 0.0 if np.isinf(f) else float(fdtrc(k - 1, (k - 1) * (n - 1), f))
    means = tuple(ranks.mean(1).tolist())
    return Ranks(means, n, statistic, float(chdtrc(k - 1, statistic)), f_p, critical_difference(k, n))


def critical_difference(methods: int, tasks: int, level: float = LEVEL) -> float:
    """Nemenyi's: the least difference of two mean ranks that chance explains with a probability below ``level``.

    >>> round(critical_difference(4, 14), 2)  # the example in Demsar 2006 has 4 methods on 14 data sets
    1.25
    """
    return _range_quantile(methods, 1 - level) * float(np.sqrt(methods * (methods + 1) / (12 * tasks)))


@cache
def _range_quantile(count: int, share: float) -> float:
    """The quantile of the range of ``count`` standard normal values (the studentized range with infinite freedom).

    P(range <= q) is the integral over the least value z of ``count * phi(z) * (Phi(z + q) - Phi(z))^(count - 1)``.
    """
    z = np.linspace(-9, 9, 4001)
    density = count * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    low, high = 0.0, 20.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        reached = float(np.trapezoid(density * (ndtr(z + middle) - ndtr(z)) ** (count - 1), z))
        low, high = (middle, high) if reached < share else (low, middle)
    return high


def alike(means: Sequence[float], distance: float) -> list[tuple[int, int]]:
    """The longest stretches of methods that are less than ``distance`` apart, by their places from the best rank on.

    Only stretches of two and more that lie in no longer one.

    >>> alike([1.0, 1.5, 2.2, 4.0], 1.0)
    [(0, 1), (1, 2)]
    """
    means = sorted(means)
    found: list[tuple[int, int]] = []
    for first in range(len(means)):
        last = max(
            place for place in range(first, len(means)) if means[place] - means[first] < distance or place == first
        )
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
