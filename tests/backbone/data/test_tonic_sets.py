"""tonic is an optional extra: what needs it runs where it is installed, on files in the format it downloads."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from engram.backbone.data import tonic_sets
from engram.backbone.data.event_options import TonicOptions
from engram.backbone.data.load import load, open_source
from engram.backbone.data.sets import MemorySplit
from engram.backbone.data.streaming import StreamedSplit
from engram.backbone.data.tonic_sets import open_tonic, to_frames
from engram.backbone.errors import UserError

installed = importlib.util.find_spec("tonic") is not None
needs_tonic = pytest.mark.skipif(not installed, reason="tonic is not installed")
FIELDS = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
NOWHERE = Path("nowhere")


def recording(count=200, sensor=(34, 34, 2), last=300_000, seed=0):
    """Events ``[count]`` in the order of time; the last as late as asked."""
    random = np.random.default_rng(seed)
    events = np.empty(count, FIELDS)
    for name, limit in zip("xyp", sensor, strict=True):
        events[name] = random.integers(0, limit, count)
    events["t"] = np.sort(random.integers(0, last, count))
    events["t"][-1:] = last
    return events


def counted(events, shape, pool=1):
    """The same frames, event after event."""
    out = np.zeros(shape, int)
    first, last = min(events["t"]), max(events["t"])
    for event in events:
        frame = int((event["t"] - first) * shape[0] // (last - first + 1))
        out[frame, event["p"], event["y"] // pool, event["x"] // pool] += 1
    return out


@pytest.mark.parametrize(("frames", "pool", "side"), [(1, 1, 34), (7, 1, 34), (16, 2, 17), (5, 3, 12)])
def test_frames_against_one_event_after_the_other(frames, pool, side):
    events = recording()
    found = to_frames(events, (34, 34, 2), frames, pool)
    assert found.dtype == np.uint8
    assert (found == counted(events, (frames, 2, side, side), pool)).all()
    assert found.sum() == len(events)


def test_time_starts_with_the_first_event_and_order_does_not_matter():
    events = recording()
    later = events.copy()
    later["t"] += 10**9
    assert (to_frames(later[::-1], (34, 34, 2), 4, 1) == to_frames(events, (34, 34, 2), 4, 1)).all()


def test_one_channel_one_row_and_recordings_without_events():
    events = recording()[["t", "x", "p"]]
    found = to_frames(events, (700, 1, 1), 4, 5)
    assert (found.shape, found.sum()) == ((4, 1, 1, 140), 200)
    assert not to_frames(events[:0], (700, 1, 1), 4, 5).any()


def test_counts_stop_at_255():
    events = np.zeros(300, FIELDS)
    assert to_frames(events, (2, 2, 2), 1, 1)[0, 0, 0, 0] == 255


@pytest.mark.parametrize(("field", "value"), [("x", 34), ("y", -1), ("p", 2)])
def test_events_outside_of_the_sensor(field, value):
    events = recording()
    events[field][3] = value
    with pytest.raises(ValueError, match=f"an event has .* {value}"):
        to_frames(events, (34, 34, 2), 4, 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tonic", {}, "must be given with a path"),
        ("tonic:nminst", {}, "a set of tonic that is known here; got 'nminst'. Did you mean nmnist?"),
        ("tonic:nmnist", {"frames": 0}, "--dataset.frames must be at least 1"),
        ("tonic:nmnist", {"pool": 0}, "--dataset.pool must be at least 1"),
    ],
)
def test_bad_names_and_options(name, options, message):
    with pytest.raises(UserError, match=message):
        open_source(name, options, root=NOWHERE, download=False)


def test_without_tonic(monkeypatch):
    monkeypatch.setattr(tonic_sets, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"used with the package tonic installed; got none. .*'engram\[tonic\]'"):
        open_source("tonic:shd", {}, root=NOWHERE, download=False)


class Claiming:
    """Recordings of which one's header names a size."""

    sensor_size, classes = (2, 2, 2), ("a", "b")

    def __init__(self, path):
        self.data = [str(path)]

    def __getitem__(self, position):
        raise MemoryError("Unable to allocate 7.28 TiB")


def test_recordings_that_claim_too_much_or_are_no_files(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"x")
    os.mkfifo(tmp_path / "b.npy")
    for name, message in (
        ("a.npy", r"tonic:shd must be undamaged; got .*a\.npy \(Unable to allocate"),
        ("b.npy", r"tonic:shd must be a regular file; got a named pipe: .*b\.npy"),
    ):
        store = tonic_sets.RecordingStore("shd", (Claiming(tmp_path / name),), ([0],), 4, 1)
        with pytest.raises(UserError, match=message):
            store.images([0])


# --- with tonic ---------------------------------------------------------------------------------------------------


def aer(events):
    """N-MNIST's file: five bytes an event, and a row of 240 wherever 8192 microseconds have passed."""
    out, passed = bytearray(), 0
    for event in events:
        while event["t"] - passed >= 2**13:
            out += bytes([0, 240, 0, 0, 0])
            passed += 2**13
        t = int(event["t"]) - passed
        out += bytes([event["x"], event["y"], int(event["p"]) << 7 | t >> 16, t >> 8 & 255, t & 255])
    return bytes(out)


@pytest.fixture
def nmnist(tmp_path, monkeypatch):
    """Three recordings per digit to train on, one to test on; the published set has 60,000 and 10,000."""
    import tonic.datasets

    monkeypatch.setattr(tonic.datasets.NMNIST, "_folder_contains_at_least_n_files_of_type", lambda *_: True)
    for part, archive, each in (("Train", "train.zip", 3), ("Test", "test.zip", 1)):
        (tmp_path / "NMNIST" / part).mkdir(parents=True)
        (tmp_path / "NMNIST" / archive).touch()
        for digit in range(10):
            (tmp_path / "NMNIST" / part / str(digit)).mkdir()
            for number in range(each):
                file = tmp_path / "NMNIST" / part / str(digit) / f"{number:05d}.bin"
                file.write_bytes(aer(recording(seed=10 * digit + number + 1000 * (part == "Test"))))
    return tmp_path


@pytest.fixture
def gestures(tmp_path):
    for part, lights in (("Train", 10), ("Test", 10)):
        (tmp_path / "DVSGesture").mkdir(exist_ok=True)
        (tmp_path / "DVSGesture" / f"ibmGesture{part}.tar.gz").touch()
        for light in range(lights):
            folder = tmp_path / "DVSGesture" / f"ibmGesture{part}" / f"user{light + 1:02d}_led"
            folder.mkdir(parents=True)
            for label in range(11):
                events = recording(50, (128, 128, 2), 6000, seed=100 * light + label + 5000 * (part == "Test"))
                np.save(folder / f"{label}.npy", np.stack([events[name] for name in "xypt"], 1))  # t in milliseconds
    return tmp_path


@pytest.fixture
def shd(tmp_path):
    import h5py

    (tmp_path / "SHD").mkdir()
    for part, count in (("train", 40), ("test", 20)):
        (tmp_path / "SHD" / f"shd_{part}.h5.zip").touch()
        random = np.random.default_rng(count)
        with h5py.File(tmp_path / "SHD" / f"shd_{part}.h5", "w") as file:
            for name, kind in (("times", np.float16), ("units", np.uint16)):
                rows = file.create_dataset(f"spikes/{name}", (count,), h5py.vlen_dtype(kind))
                for row in range(count):
                    rows[row] = np.sort(random.random(30)) if name == "times" else random.integers(0, 700, 30)
            file["labels"] = np.arange(count) % 20
            file["extra/keys"] = np.array([f"word {label}".encode() for label in range(20)])
            file["extra/speaker"] = np.zeros(count, int)
    return tmp_path


@needs_tonic
def test_nmnist(nmnist):
    source = open_source("tonic:nmnist", {"frames": 5}, root=nmnist, download=False)
    assert (source.train.in_shape, source.train.frames, len(source.classes)) == ((2, 34, 34), 5, 10)
    assert source.train.labels.tolist() == [digit for digit in range(10) for _ in range(3)]
    assert source.test.labels.tolist() == list(range(10))
    for index in (0, 17, 29):
        events = recording(seed=10 * (index // 3) + index % 3)
        assert (source.train.images[index].numpy() == counted(events, (5, 2, 34, 34))).all()


@needs_tonic
def test_gestures_are_in_the_order_of_their_names_whatever_the_disk_says(gestures):
    source = open_source("tonic:dvs128-gesture", {"frames": 4, "pool": 4}, root=gestures, download=False)
    assert (source.train.in_shape, source.train.frames) == ((2, 32, 32), 4)
    assert source.classes[3] == "Right arm cw"
    assert source.train.labels[:11].tolist() == [0, 1, 10, *range(2, 10)]
    third = source.train.images[22:33][source.train.labels[22:33] == 5][0]
    events = recording(50, (128, 128, 2), 6000, seed=205)
    events["t"] *= 1000
    assert (third.numpy() == counted(events, (4, 2, 32, 32), 4)).all()


@needs_tonic
def test_spoken_digits(shd):
    data = load("tonic:shd", {"frames": 10, "pool": 5}, root=shd)
    assert (data.in_shape, data.frames, data.classes[:2]) == ((1, 1, 140), 10, ("word 0", "word 1"))
    assert (len(data.train), len(data.test)) == (36, 20)
    assert data.train.images.sum((1, 2, 3, 4)).tolist() == [30] * 36


@needs_tonic
@pytest.mark.parametrize("name", ["nmnist", "dvs128-gesture", "shd"])
def test_over_the_budget_is_streamed_with_the_same_result(request, name):
    root = request.getfixturevalue({"dvs128-gesture": "gestures"}.get(name, name))
    held, streamed = (
        open_tonic(name, TonicOptions(frames=3, pool=4), root=root, download=False, budget_bytes=size)
        for size in (2**30, 0)
    )
    assert isinstance(held.train, MemorySplit)
    assert isinstance(streamed.train, StreamedSplit)
    assert held.fingerprint == streamed.fingerprint
    wholes = [source.train.and_also(source.test) for source in (held, streamed)]
    order = torch.randperm(len(wholes[0]))
    for one, two in zip(*(whole.batches(order, 16, "cpu") for whole in wholes), strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])
    assert [m.tolist() for m in held.test.moments()[:2]] == [m.tolist() for m in streamed.test.moments()[:2]]


@needs_tonic
@pytest.mark.parametrize("name", ["nmnist", "dvs128-gesture", "shd"])
def test_absent_and_not_to_be_downloaded(name, tmp_path):
    with pytest.raises(
        UserError, match=f"tonic:{name} must be under the data root; got nothing complete at .*--download"
    ):
        open_source(f"tonic:{name}", {}, root=tmp_path, download=False)
    assert list(tmp_path.iterdir()) == []


@needs_tonic
def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    import tonic.datasets

    def fails(self):
        raise OSError("no\nroute")

    monkeypatch.setattr(tonic.datasets.NMNIST, "download", fails)
    with pytest.raises(UserError, match=r"tonic:nmnist must be readable below .*; got OSError: no route\. Check"):
        open_source("tonic:nmnist", {}, root=tmp_path, download=True)


@needs_tonic
def test_a_damaged_recording_is_named(nmnist, gestures):
    (nmnist / "NMNIST/Train/4/00001.bin").write_bytes(bytes([200, 3, 0, 0, 0]))
    with pytest.raises(UserError, match=r"a recording of tonic:nmnist must be undamaged; got .*4/00001.bin \(an event"):
        open_source("tonic:nmnist", {}, root=nmnist, download=False)
    (nmnist / "NMNIST/Train/4/00001.bin").write_bytes(b"abc")
    with pytest.raises(UserError, match=r"undamaged; got .*4/00001.bin"):
        open_source("tonic:nmnist", {}, root=nmnist, download=False)
    (gestures / "DVSGesture/ibmGestureTrain/user01_led/3.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"undamaged; got .*user01_led/3.npy"):
        open_source("tonic:dvs128-gesture", {}, root=gestures, download=False)


@needs_tonic
def test_frames_agree_with_tonics_own(nmnist):
    from tonic.transforms import ToFrame

    events = recording(last=299_999)
    events["t"][0] = 0
    theirs = ToFrame(sensor_size=(34, 34, 2), time_window=30_000, include_incomplete=True)(events)
    assert (to_frames(events, (34, 34, 2), 10, 1) == theirs).all()
