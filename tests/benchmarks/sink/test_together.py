"""Several things asked of a server at once."""

from __future__ import annotations

import threading

import pytest

from engram.benchmarks.sink.together import together


@pytest.mark.parametrize("most", [1, 3])
def test_answers_come_in_order_and_nothing_begins_after_an_error(most):
    assert together(lambda item: item * item, range(20), most) == [item * item for item in range(20)]
    begun = []

    def fail(item):
        begun.append(item)
        if item == 4:
            raise ConnectionError(item)

    with pytest.raises(ConnectionError):
        together(fail, range(10_000), most)
    assert 4 in begun and len(begun) < 10_000


def test_so_many_are_under_way_at_a_time():
    meeting = threading.Barrier(4, timeout=30)  # which only four threads get past
    together(lambda _: meeting.wait(), range(8), 4)
    before = threading.active_count()
    together(lambda _: None, range(8), 4)
    assert threading.active_count() == before
