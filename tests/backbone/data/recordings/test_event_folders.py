from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engram.backbone.data.checking import check_events
from engram.backbone.data.event_folders import open_events
from engram.backbone.data.event_options import EventsOptions
from engram.backbone.data.load import load
from engram.backbone.data.made_of import events_files
from engram.backbone.data.recordings.reading import read
from engram.backbone.errors import UserError


@pytest.fixture
def recorded(tmp_path, events, written):
    """``recorded({"train/a": 3}, suffix)``: a folder of that many recordings in each of its folders."""

    def make(counts, suffix=".bin", side=(30, 20), where="set"):
        number = 0
        for folder, count in counts.items():
            place = tmp_path / where / folder
            place.mkdir(parents=True, exist_ok=True)
            for each in range(count):
                (place / f"{each}{suffix}").write_bytes(written(suffix, *events(seed=number, side=side)))
                number += 1
        return tmp_path / where

    return make


@pytest.fixture
def opened(tmp_path):
    def open_it(where, budget=2**30, **options):
        return open_events(str(where), EventsOptions(**options), root=tmp_path, download=False, budget_bytes=budget)

    return open_it


def checked(where, tmp_path, **options):
    return check_events(str(where), EventsOptions(**options), root=tmp_path, download=False, training=True)


def pixels(split):
    return torch.cat([images for images, _, _ in split.batches(torch.arange(len(split)), 4, "cpu")])


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "Test"), ("TRAIN", "val")])
def test_parts_of_the_folder(recorded, opened, train, test):
    source = opened(recorded({f"{train}/b": 2, f"{train}/a": 3, f"{test}/b": 1}))
    assert source.classes == ("a", "b")
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert source.test.labels.tolist() == [1]
    assert (source.train.in_shape, source.train.frames) == ((2, 20, 30), 16)


def test_below_the_data_root(recorded, opened, tmp_path):
    recorded({"a": 2, "b": 2})
    assert opened("set").fingerprint == opened(tmp_path / "set").fingerprint
    assert events_files("set", root=tmp_path).where == f"events:{tmp_path / 'set'}"


def test_a_share_to_test_on_is_the_same_one_and_all_classes_are_in_it(recorded, opened, tmp_path):
    where = recorded({"a": 10, "b": 20})
    source = opened(where, test=0.2)
    assert torch.bincount(source.test.labels).tolist() == [2, 4]
    assert (len(source.train), len(source.test)) == (24, 6)
    usual = load(f"events:{where}", {}, root=tmp_path, validation=0)
    assert (pixels(usual.test) == pixels(source.test)).all()
    assert source.fingerprint != opened(where).fingerprint
    both = {*source.train.columns["original_index"].tolist(), *source.test.columns["original_index"].tolist()}
    assert both == set(range(30))


def test_kept_and_streamed_are_the_same(recorded, opened):
    where = recorded({"a": 6, "b": 5})
    kept, streamed = (opened(where, budget=budget, pool=2, test=0.3) for budget in (2**30, 0))
    assert kept.fingerprint == streamed.fingerprint
    for part in ("train", "test"):
        one, other = kept.parts[part], streamed.parts[part]
        assert (pixels(one) == pixels(other)).all()
        assert [values.tolist() for values in one.moments()[:2]] == [values.tolist() for values in other.moments()[:2]]
        assert one.columns["original_index"].tolist() == other.columns["original_index"].tolist()


def test_every_byte_and_every_name_counts(recorded, opened):
    where = recorded({"a": 2, "b": 2})
    first = opened(where).fingerprint
    (where / "b").rename(where / "c")
    assert (renamed := opened(where).fingerprint) != first
    blob = bytearray((where / "c" / "1.bin").read_bytes())
    blob[0] ^= 1
    (where / "c" / "1.bin").write_bytes(blob)
    assert opened(where).fingerprint != renamed


def test_recordings_of_both_parts_are_counted(recorded, tmp_path):
    where = recorded({"train/a": 5, "train/b": 5, "test/a": 1, "test/b": 1})
    (where / "test" / "a" / "0.bin").write_bytes((where / "train" / "a" / "3.bin").read_bytes())
    data = load(f"events:{where}", {}, root=tmp_path, validation=0)
    assert data.facts == {"test_images_in_train": 1}
    with pytest.raises(UserError, match="1 of its 2 images among the training images"):
        load(f"events:{where}", {"duplicates": "refuse"}, root=tmp_path, validation=0)


def test_files_that_identify_it(recorded):
    where = recorded({"Train/a": 1, "Train/b": 2, "Test/a": 1})
    (where / "Train" / "a" / "notes.txt").write_text("no recording")
    found = events_files(str(where), root=Path())
    assert sorted(found.files) == ["test/a/0/0.bin", "train/a/0/0.bin", "train/b/0/0.bin", "train/b/1/1.bin"]


def test_sensors_differ(recorded, opened, tmp_path):
    recorded({"a": 2}, ".dat")
    where = recorded({"b": 2}, ".aedat4")
    assert opened(where).train.in_shape == (2, 20, 30)
    where = recorded({"c": 1}, ".aedat")
    with pytest.raises(UserError, match=r"must be of the same sensor; got .*30 x 20 .*240 x 180"):
        opened(where)
    assert opened(where, width=240, height=180, pool=4).train.in_shape == (2, 45, 60)
    assert "must be on the sensor of 12 x 20; got one at column" in checked(where, tmp_path, width=12, height=20)[0]


def test_all_that_is_wrong_at_once(recorded, tmp_path):
    where = recorded({"a": 2, "b": 14})
    (where / "a" / "0.bin").write_bytes(b"1234567")
    for number in range(13):
        (where / "b" / f"{number}.bin").write_bytes(b"")
    problems = checked(where, tmp_path)
    assert len(problems) == 11
    assert "a/0.bin (it ends within the record at byte 5)" in problems[0]
    assert "4 more of 16" in problems[-1]


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"crop": 25}, "--dataset.crop must be at most the shorter side of the sensor; got 25 of 30 x 20"),
        ({"frames": 1000, "width": 4096, "height": 4096}, "the frames of a recording must be at most 268,435,456"),
    ],
)
def test_options_that_do_not_fit(recorded, tmp_path, options, got):
    assert got in checked(recorded({"a": 1, "b": 1}), tmp_path, **options)[0]


def test_a_share_beside_a_test_part(recorded, opened, tmp_path):
    where = recorded({"train/a": 2, "train/b": 2, "test/a": 1})
    assert "--dataset.test must be left out" in checked(where, tmp_path, test=0.5)[0]
    with pytest.raises(UserError, match=r"--dataset\.test must be left out"):
        opened(where, test=0.5)


def test_a_set_of_one_class_and_of_none(recorded, tmp_path):
    assert "must be of at least two classes" in checked(recorded({"a": 2}), tmp_path)[0]
    (tmp_path / "empty").mkdir()
    assert "one folder of recordings per class" in checked(tmp_path / "empty", tmp_path)[0]


def test_a_recording_that_changes_meanwhile(recorded, opened, events, written):
    where = recorded({"a": 3, "b": 3})
    source = opened(where, budget=0)
    store = replace(source.train.store)
    (where / "a" / "0.bin").write_bytes(written(".bin", *events(side=(100, 100))))
    with pytest.raises(UserError, match=r"must be as it was; got .*a/0\.bin"):
        store.images([0])


@pytest.mark.data
def test_real_recordings(data_root, tmp_path):
    root = data_root("nmnist-small/Train")
    source = open_events("nmnist-small", EventsOptions(test=0.1), root=root, download=False, budget_bytes=2**32)
    assert (len(source.train), len(source.test)) == (900, 100)
    assert (source.train.in_shape, source.classes) == ((2, 34, 34), tuple("0123456789"))
    assert torch.bincount(source.test.labels).tolist() == [10, 12, 10, 9, 10, 9, 9, 12, 9, 10]
    assert source.fingerprint.startswith("0d646105")


@pytest.mark.data
def test_samples_of_other_tools(data_root):
    root = data_root("third-party/events") / "third-party" / "events"
    expected = {
        "tonic/sample.aedat4": (111_954, (320, 240), (319, 239), 589_917),
        "tonic/sample_ncars.dat": (2_009, None, (77, 41), 99_952),
        "tonic/sample_nmnist.bin": (4_325, None, (33, 33), 310_521),
        "tonic/sample_stmnist.mat": (2_346, (10, 10), (9, 8), 699_119),
        "expelliarmus/evt2_sample.raw": (539_481, None, (599, 475), 50_000),
        "expelliarmus/evt3_sample.raw": (219_596, None, (1279, 719), 8_801),
    }
    for name, found in expected.items():
        events = read(root / name, EventsOptions())
        reach = (int(events.x.max()), int(events.y.max()))
        assert (len(events), events.sensor, reach, int(events.t[-1] - events.t[0])) == found, name


@pytest.mark.data
def test_evt3_against_the_reference(data_root):
    """Places, signs and order of 219,596 events are equal. Its times add 4,096 wherever the low word steps back, in
    eleven places, while the stream's own high words say 551 times that a 16th of a millisecond has gone by.
    """
    root = data_root("third-party/events") / "third-party" / "events" / "expelliarmus"
    theirs = np.load(root / "evt3_sample_reference.npz")["events"]
    ours = read(root / "evt3_sample.raw", EventsOptions())
    assert all((getattr(ours, key) == theirs[key]).all() for key in "xyp")
    ahead = theirs["t"] - ours.t
    assert np.unique(ahead).tolist() == [4096 * k for k in range(12)]
    assert (np.diff(ahead) >= 0).all()
