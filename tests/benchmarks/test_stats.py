"""Statistics against scipy, brute force, printed examples and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as oracle

from benchmarks.stats import Interval, holm, interval, paired, seeds_needed, sign_flip, verdict

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


@given(VALUES)
def test_interval_is_scipys(values):
    found = interval(values)
    spread = np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    if spread > 1e-9:
        low, high = oracle.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=spread)
        assert (found.low, found.high) == (
            pytest.approx(low, rel=1e-9, abs=1e-7),
            pytest.approx(high, rel=1e-9, abs=1e-7),
        )


def test_interval_of_nothing_one_and_not_a_number():
    assert math.isnan(interval([]).mean)
    assert interval([0.5]) == Interval(0.5, None, None, 1)
    assert math.isnan(interval([0.5, math.nan]).mean)
    assert math.isnan(interval([0.5, math.inf]).mean)
    assert interval([0.1, 0.1, 0.1]) == Interval(0.1, 0.1, 0.1, 3)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_interval_covers_what_it_says(n):
    rng = np.random.default_rng(n)
    samples = rng.normal(0.9, 0.02, size=(2000, n))
    hits = [found.low <= 0.9 <= found.high for found in map(interval, samples.tolist())]
    assert 0.935 <= np.mean(hits) <= 0.965  # 95 % within three standard errors of 2,000 draws


@given(st.lists(st.integers(-20, 20).map(lambda value: value / 7), min_size=1, max_size=7))
def test_sign_flip_is_brute_force(differences):
    observed = abs(sum(differences))
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    assert sign_flip(differences) == np.mean([value >= observed - 1e-9 for value in sums])


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=10))
def test_sign_flip_of_one_sided_differences_is_the_floor(differences):
    assert sign_flip(differences) == pytest.approx(2 / 2 ** len(differences))


def test_sign_flip_agrees_with_scipys_permutation_test():
    differences = np.random.default_rng(1).normal(0.3, 1, size=9)
    found = oracle.permutation_test(
        (differences,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", n_resamples=math.inf
    )
    assert sign_flip(differences.tolist()) == pytest.approx(found.pvalue)


def test_sign_flip_of_many_is_sampled_and_never_zero():
    assert sign_flip([1.0] * 40) == pytest.approx(1 / 100_001)
    differences = np.random.default_rng(2).normal(0.2, 1, size=16).tolist()
    padded = [*differences, 0.0]  # a zero changes nothing but the method
    assert sign_flip(padded) == pytest.approx(sign_flip(differences), abs=0.01)
    assert sign_flip(padded) == sign_flip(padded)


def test_no_difference_at_all_is_no_evidence():
    assert sign_flip([0.0, 0.0, 0.0]) == 1.0


def test_holm_on_a_known_example():
    # R: p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm")
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    # R: p.adjust(c(0.04, 0.0001, 0.5, 0.012), "holm")
    assert holm([0.04, 0.0001, 0.5, 0.012]) == pytest.approx([0.08, 0.0004, 0.5, 0.036])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, adjusted, strict=True))
    ranked = [adjusted[index] for index in sorted(range(len(p_values)), key=p_values.__getitem__)]
    assert ranked == sorted(ranked)


def test_paired_uses_common_seeds_only():
    found = paired({0: 0.9, 1: 0.8, 2: 0.7}, {1: 0.7, 2: 0.5, 3: 0.1})
    assert found.seeds == (1, 2)
    assert found.difference.mean == pytest.approx(0.15)
    assert found.p == 0.5
    assert paired({0: 1.0}, {1: 1.0}).p is None
    assert paired({0: math.nan}, {0: 1.0}).p is None


@pytest.mark.parametrize(("comparisons", "needed"), [(1, 6), (2, 7), (3, 7), (10, 9)])
def test_seeds_needed_reach_the_level_and_one_less_does_not(comparisons, needed):
    assert seeds_needed(comparisons) == needed
    assert comparisons * 2 / 2**needed <= 0.05 < comparisons * 2 / 2 ** (needed - 1)


def test_verdicts():
    assert verdict(3, 0.25, 1) == "too few seeds (3 of 6)"
    assert verdict(6, 0.03125, 1) == "differs"
    assert verdict(6, 0.0625, 2) == "too few seeds (6 of 7)"
    assert verdict(8, 0.4, 1) == "no difference shown"
    assert verdict(0, None, 1) == "nothing to compare"
