"""The Pareto front against its definition."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from engram.benchmarks.compare.pareto import on_front

VALUE = st.sampled_from([0.0, 1.0, 2.0, 3.0, math.inf, math.nan])


def beats(one, other, directions):
    better = [a > b if way == "max" else a < b for a, b, way in zip(one, other, directions, strict=True)]
    worse = [a < b if way == "max" else a > b for a, b, way in zip(one, other, directions, strict=True)]
    return any(better) and not any(worse)


@given(
    st.lists(st.sampled_from(["max", "min"]), min_size=1, max_size=4).flatmap(
        lambda ways: st.tuples(st.just(ways), st.lists(st.tuples(*[VALUE] * len(ways)), max_size=12))
    )
)
def test_the_front_is_what_nothing_beats(case):
    directions, points = case
    known = [point for point in points if not any(map(math.isnan, point))]
    expected = [
        point in known
        and not any(beats(other, point, directions) for other in known)
        and not any(map(math.isnan, point))
        for point in points
    ]
    assert on_front(points, directions) == expected


def test_no_point_and_equal_ones():
    assert on_front([], ["max"]) == []
    assert on_front([(0.0, math.inf)], ["max", "min"]) == [True]
    assert on_front([(1.0, 2.0), (1.0, 2.0), (0.0, 2.0)], ["max", "max"]) == [True, True, False]
