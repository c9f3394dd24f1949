import numpy as np
import pytest

from engram.backbone.data.binning import Binning


def one_by_one(fields, shape, frame_of, pool=1, corner=(0, 0), most=255):
    out = np.zeros(shape, int)
    for k, (t, x, y, p) in enumerate(zip(*(values.tolist() for values in fields), strict=True)):
        place = (frame_of(k, t), p, (y - corner[1]) // pool, (x - corner[0]) // pool)
        if all(0 <= at < size for at, size in zip(place, shape, strict=True)):
            out[place] += 1
    return out.clip(max=most)


@pytest.mark.parametrize("pool", [1, 3])
def test_windows_begin_with_the_first_event(events, pool):
    fields = events(400, last=9000, first=1000)
    first = fields[0].min()
    found = Binning((30, 20), 2, 6, pool, window=1500.0)(*fields)
    shape = (6, 2, -(-20 // pool), -(-30 // pool))
    assert (found == one_by_one(fields, shape, lambda k, t: (t - first) // 1500, pool)).all()


def test_windows_of_a_part_of_a_microsecond_and_none_left(events):
    fields = events(50, last=40)
    first = fields[0].min()
    found = Binning((30, 20), 2, 100, window=0.5)(*fields)
    assert (found == one_by_one(fields, found.shape, lambda k, t: int((t - first) / 0.5))).all()
    assert not found[-5:].any()


def test_frames_of_equally_many_events(events):
    found = Binning((30, 20), 2, 7, by="count")(*events(100))
    assert found.sum((1, 2, 3)).tolist() == [15, 14, 14, 15, 14, 14, 14]


def test_the_middle_alone(events):
    fields = events(500)
    found = Binning((30, 20), 2, 4, pool=2, crop=(9, 9))(*fields)
    span = fields[0] - fields[0].min()
    frames = span * 4 // (span.max() + 1)
    shape = (4, 2, 5, 5)
    inside = (fields[1] >= 10) & (fields[1] < 19) & (fields[2] >= 5) & (fields[2] < 14)
    kept = [values[inside] for values in fields]
    chosen = frames[inside]
    assert (found == one_by_one(kept, shape, lambda k, t: chosen[k], 2, (10, 5))).all()


def test_no_more_than(events):
    fields = events(2000)
    many = Binning((30, 20), 2, 2)(*fields)
    assert many.max() > 1
    assert (Binning((30, 20), 2, 2, most=1)(*fields) == (many > 0)).all()
