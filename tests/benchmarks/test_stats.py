"""Statistics against scipy, brute force, printed examples and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as oracle

from engram.backbone.measures.intervals import Interval, interval
from engram.benchmarks.compare.stats import holm, paired, seeds_needed, sign_flip, verdict

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


ROOMY = (-1000.0, 1000.0)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.sampled_from([(0.0, 1.0), (0.0, None), (None, 1.0)]))
def test_a_bounded_interval_holds_the_mean_and_stays_within_its_bounds(values, bounds):
    found, plain = interval(values, bounds=bounds), interval(values)
    low, high = (-math.inf if bounds[0] is None else bounds[0]), (math.inf if bounds[1] is None else bounds[1])
    assert (found.mean, found.n) == (plain.mean, plain.n)
    assert low <= found.low <= found.mean <= found.high <= high


@given(st.lists(st.floats(0.01, 0.99), min_size=2, max_size=8), st.sampled_from([(0.0, 1.0), (0.0, None), (None, 1.0)]))
def test_the_ends_of_a_bounded_interval_are_wilsons(values, bounds):
    """As far from the mean as t times the deviation that a mean there would have."""
    found = interval(values, bounds=bounds)
    t, variance = oracle.t.ppf(0.975, len(values) - 1), np.var(values, ddof=1) / len(values)

    def room(p):
        return math.prod(abs(p - bound) for bound in bounds if bound is not None)

    for end in (found.low, found.high):
        expected = t**2 * variance * room(end) / room(found.mean)
        assert (end - found.mean) ** 2 == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_far_from_its_bounds_an_interval_is_students():
    values = [0.4, 0.5, 0.7]
    found, plain = interval(values, bounds=ROOMY), interval(values)
    assert (found.low, found.high) == (pytest.approx(plain.low, rel=1e-4), pytest.approx(plain.high, rel=1e-4))


def test_intervals_of_bounded_metrics_by_mirror_and_example():
    up, down = interval([0.95, 0.99], bounds=(0.0, 1.0)), interval([0.05, 0.01], bounds=(0.0, 1.0))
    assert (up.low, up.high) == (pytest.approx(1 - down.high), pytest.approx(1 - down.low))
    # 50 of 100 and 5 of 100 with z: R's prop.test(50, 100, correct = FALSE), with the spread that 100 draws have
    for share, ends in ((0.5, (0.4038, 0.5962)), (0.05, (0.0215, 0.1118))):
        n, z = 2, 1.959964
        half = math.sqrt(share * (1 - share) / 100) * z
        apart = half * math.sqrt(n) / float(oracle.t.ppf(0.975, n - 1)) / math.sqrt(2)
        found = interval([share - apart, share + apart], bounds=(0.0, 1.0))
        assert (found.low, found.high) == (pytest.approx(ends[0], abs=1e-4), pytest.approx(ends[1], abs=1e-4))
    assert interval([1.0, 1.0, 1.0], bounds=(0.0, 1.0)) == Interval(1.0, 1.0, 1.0, 3)
    assert interval([0.5], bounds=(0.0, 1.0)) == Interval(0.5, None, None, 1)
    outside = interval([0.9, 1.2], bounds=(0.0, 1.0))
    assert outside == interval([0.9, 1.2])  # a wrong declaration hides nothing


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize(("mean", "deviation"), [(0.5, 0.2), (0.9, 0.02), (0.9, 0.08), (0.98, 0.015), (0.995, 0.002)])
def test_a_bounded_interval_covers_what_it_says(mean, deviation, n):
    """Fractions that spread as beta distributions do; Student's own covers 91 % where they lie close to a bound."""
    size = mean * (1 - mean) / deviation**2 - 1
    samples = np.random.default_rng(n).beta(mean * size, (1 - mean) * size, size=(2000, n)).tolist()
    covered = {
        bounds: np.mean([f.low <= mean <= f.high for f in (interval(values, bounds=bounds) for values in samples)])
        for bounds in ((0.0, 1.0), (None, None))
    }
    assert 0.925 <= covered[0.0, 1.0] <= 0.965
    assert covered[0.0, 1.0] >= covered[None, None] - 0.003


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_of_what_is_only_not_negative_cover_what_they_say(n):
    samples = np.random.default_rng(n).gamma(4.0, 0.25, size=(2000, n)).tolist()
    hits = [found.low <= 1.0 <= found.high for found in (interval(values, bounds=(0.0, None)) for values in samples)]
    assert 0.925 <= np.mean(hits) <= 0.965


def test_a_difference_of_fractions_lies_between_minus_one_and_one():
    ours, theirs = {0: 1.0, 1: 0.5}, {0: 0.0, 1: 0.0}
    assert paired(ours, theirs).difference.high > 3
    found = paired(ours, theirs, (0.0, 1.0)).difference
    assert found == interval([1.0, 0.5], bounds=(-1.0, 1.0)) and -1 <= found.low < 0.75 < found.high <= 1
    one_sided = paired(ours, theirs, (0.0, None)).difference
    assert one_sided == paired(ours, theirs).difference  # nothing bounds it


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
