"""Whole numbers that look random and never change, with a library's version, a processor or a number of threads."""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mixed(state: np.ndarray) -> np.ndarray:
    """A number that looks random for each of ``state: [...] uint64``, different for different ones.

    Source: splitmix64, Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators", figure 17.
    """
    state = state * _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def lots(keys: np.ndarray, *shape: int) -> np.ndarray:
    """Numbers ``[..., *shape] uint64`` of each of ``keys: [...] uint64``; they are keys of further ones, too.

    A key's numbers do not depend on how many are asked for along the first of the dimensions.
    """
    places = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64).reshape(shape)
    return mixed(keys[(..., *(None,) * len(shape))] + mixed(places))


def below(lot: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Uniform over 0 .. bound - 1, ``int64``, of lots of the same shape; a bound is at most 2 ** 31.

    >>> found = below(lots(np.zeros(1, np.uint64), 1000), 5)
    >>> found.min(), found.max()
    (np.int64(0), np.int64(4))
    """
    return ((lot >> np.uint64(32)).astype(np.int64) * bound) >> 32


def between(lot: np.ndarray, low: int, high: int) -> np.ndarray:
    """Uniform over low .. high, both included, ``int64``."""
    return low + below(lot, high - low + 1)


def around(lot: np.ndarray, most: int | np.ndarray) -> np.ndarray:
    """Over -most .. most, ``int64``, the nearer to 0 the likelier: the difference of two uniform numbers."""
    return below(lot, most + 1) - below(lot << np.uint64(32), most + 1)
