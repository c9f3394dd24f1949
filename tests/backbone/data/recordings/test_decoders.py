import io
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from engram.backbone.data.event_options import EventsOptions
from engram.backbone.data.recordings.events import Events, unwrapped
from engram.backbone.data.recordings.evt import decode_evt
from engram.backbone.data.recordings.reading import decode, read
from engram.backbone.errors import UserError

KEYS = "txyp"
SIDES = {".mat": (10, 10)}
NAMES = [".bin", ".dat", "evt2", "evt3", ".aedat", ".aedat4", ".npz", ".npy", ".mat"]


def decoded(name, blob, **options):
    suffix = {"evt2": ".raw", "evt3": ".raw"}.get(name, name)
    return decode(blob, Path(f"some{suffix}"), EventsOptions(**options))


def equal(found, fields):
    return all(np.array_equal(getattr(found, key), values) for key, values in zip(KEYS, fields, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_what_was_written_is_read(events, written, name):
    fields = events(side=SIDES.get(name, (30, 20)))
    found = decoded(name, written(name, *fields))
    assert equal(found, fields)
    assert [getattr(found, key).dtype for key in KEYS] == [np.int64, np.int32, np.int32, np.uint8]


@pytest.mark.parametrize(
    ("name", "sensor"),
    [(".bin", None), (".dat", (30, 20)), ("evt2", (30, 20)), (".aedat", (240, 180)), (".aedat4", (30, 20))],
)
def test_sensors(events, written, name, sensor):
    assert decoded(name, written(name, *events())).sensor == sensor


def test_evt3_says_height_before_width(events, written):
    text = "% evt 3.0\n% format EVT3;width=30;height=20\n% end\n"
    assert decoded("evt3", written("evt3", *events(), text=text)).sensor == (30, 20)


def test_hdf5_in_a_group(events, tmp_path):
    fields = events()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("cd/events")
        for key, values in zip(("Timestamps", "x", "y", "polarity"), fields, strict=True):
            group.create_dataset(key, data=values, compression="gzip")
    assert equal(read(tmp_path / "a.h5", EventsOptions()), fields)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_aedat4_compressed_and_other_packets(events, written, codec):
    fields = events(70)
    other = struct.pack("<I", 30) + struct.pack("<I4s", 8, b"IMUS") + bytes(22)
    blob = written(".aedat4", *fields, codec=codec, number={"lz4": 2, "zstd": 3}[codec], others=[other])
    assert equal(decoded(".aedat4", blob), fields)


def test_aedat4_of_two_cameras(events, written):
    one = written(".aedat4", *events(5))
    packet = one[one.rindex(b"EVTS") - 8 :]
    with pytest.raises(UserError, match="several cameras"):
        decoded(".aedat4", written(".aedat4", *events(5), others=[packet]))


@pytest.mark.parametrize("chip", ["ch.unizh.ini.jaer.chip.retina.DVS128", "eu.seebetter.ini.chips.davis.Davis346red"])
def test_aedat2_cameras_turn_the_picture(events, written, chip):
    fields = events(side=(100, 90))
    assert equal(decoded(".aedat", written(".aedat", *fields, chip=chip)), fields)


def test_aedat2_passes_over_what_is_no_event(events, written):
    fields = events()
    frame = struct.pack(">IIII", 0x8000_0000 | 5 << 12, 7, 0x400, 9)
    assert equal(decoded(".aedat", written(".aedat", *fields) + frame), fields)


def test_aedat2_without_a_camera(events, written):
    blob = written(".aedat", *events(), chip="unknown")
    with pytest.raises(UserError, match="names no camera"):
        decoded(".aedat", blob)
    assert decoded(".aedat", blob, camera="davis346").sensor == (346, 260)


def test_nmnist_clock_that_ran_over():
    rows = [(1, 2, 1 << 23 | 5), (0, 240, 0), (3, 4, 6), (0, 240, 0), (5, 6, 1)]
    found = decoded(".bin", b"".join(bytes(row[:2]) + row[2].to_bytes(3, "big") for row in rows))
    assert (found.t.tolist(), found.x.tolist(), found.p.tolist()) == ([5, 8198, 16385], [1, 3, 5], [1, 0, 0])


@pytest.mark.parametrize(("name", "period"), [(".dat", 2**32), ("evt2", 2**34), ("evt3", 2**24), (".aedat", 2**32)])
def test_counters_that_begin_anew(events, written, name, period):
    t, *rest = events()
    late = t + period - int(t[30])
    assert equal(decoded(name, written(name, late, *rest)), (late, *rest))


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
def test_units(events, written, unit):
    t, *rest = events()
    factor = {"s": 1e-6, "ms": 1e-3, "ns": 1e3}[unit]
    assert equal(decoded(".npz", written(".npz", t * factor, *rest), unit=unit), (t, *rest))


def by_word(words, version):
    """The events of a stream, one word after another: the formats' own way of saying it."""
    out, y, high, low, base, turns = [], None, None, 0, None, 0
    for word in words:
        if version == 2:
            kind, value = word >> 28, word & 0xFFFFFFF
            if kind == 8:
                turns += high is not None and value - high < -(2**27)
                turns -= high is not None and value - high > 2**27
                high = value
            elif kind in (0, 1) and high is not None:
                out.append(((high + turns * 2**28 << 6) + (value >> 22), value >> 11 & 0x7FF, value & 0x7FF, kind))
            continue
        kind, value = word >> 12, word & 0xFFF
        if kind == 8:
            turns += high is not None and value - high < -(2**11)
            turns -= high is not None and value - high > 2**11
            low = 0 if value != high else low
            high = value
        elif kind == 6:
            low = value
        elif kind == 0:
            y = value & 0x7FF
        elif kind == 3:
            base = [value & 0x7FF, value >> 11]
        elif kind in (2, 4, 5):
            ready = y is not None and high is not None
            time = (high + turns * 4096 << 12) + low if ready else 0
            if kind == 2 and ready:
                out.append((time, value & 0x7FF, y, value >> 11))
            elif kind != 2 and base is not None:
                width = 12 if kind == 4 else 8
                if ready:
                    out += [(time, base[0] + k, y, base[1]) for k in range(width) if value >> k & 1]
                base[0] += width
    return sorted(out, key=lambda event: event[0])


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("version", [2, 3])
def test_streams_against_one_word_after_the_other(seed, version):
    random = np.random.default_rng(seed)
    if version == 2:
        kinds = random.choice([0, 1, 8, 10, 14, 15], 300, p=[0.4, 0.4, 0.1, 0.04, 0.03, 0.03])
        # times creep on over the end of the counter
        values = np.where(kinds == 8, 2**28 - 40 + np.cumsum(kinds == 8), random.integers(0, 2**28, 300)) % 2**28
        words = (kinds << 28 | values).astype("<u4")
    else:
        kinds = random.choice([0, 2, 3, 4, 5, 6, 7, 8, 10], 400, p=[0.1, 0.25, 0.15, 0.15, 0.1, 0.1, 0.02, 0.1, 0.03])
        values = random.integers(0, 2**12, 400)
        values = np.where(kinds == 8, 2**12 - 10 + np.cumsum(kinds == 8) // 2, values) % 2**12
        words = (kinds << 12 | values).astype("<u2")
    found = decode_evt(f"% evt {version}.0\n% end\n".encode() + words.tobytes())
    expected = by_word([int(word) for word in words], version)
    assert [tuple(row) for row in np.stack([getattr(found, key) for key in KEYS], 1).tolist()] == expected


def test_events_out_of_order_are_sorted_and_equal_times_stay():
    found = Events.of(*(np.array(values) for values in ([5, 3, 3], [1, 2, 3], [0, 0, 0], [0, 1, 0])))
    assert (found.t.tolist(), found.x.tolist()) == ([3, 3, 5], [2, 3, 1])


def test_unwrapping_leaves_small_steps_back():
    assert unwrapped(np.array([6, 0, 7, 1, 0, 2]), 8).tolist() == [6, 8, 7, 9, 8, 10]


@pytest.mark.parametrize(
    ("name", "blob", "got"),
    [
        (".bin", b"", "no event"),
        (".bin", b"1234567", "ends within the record at byte 5"),
        (".dat", b"% Version 1\n\x00\x08", "version 1 where version 2"),
        (".dat", b"% Version 2\n\x00", "before the size of a record"),
        (".dat", b"% Version 2\n\x00\x09", "records of 9 bytes"),
        (
            ".dat",
            b"% Version 2\n% Width 3\n% Height 9\n\x00\x08" + struct.pack("<II", 0, 3),
            "x 3 of a sensor of 3 x 9",
        ),
        (".dat", b"% Version 2\n\x00\x08" + struct.pack("<II", 0, 2 << 28), "polarity 2"),
        ("evt2", b"% evt 4.0\n", "EVT 4.0 where EVT 2.0 and 3.0"),
        ("evt2", b"PK\x03\x04", "no format"),
        ("evt2", b"% evt 2.0\n" + struct.pack("<I", 9 << 28), "the word at byte 10 is of kind 0x9"),
        ("evt3", b"% evt 3.0\n" + struct.pack("<HH", 0x8001, 0x9000), "the word at byte 12 is of kind 0x9"),
        ("evt3", b"% evt 3.0\n" + struct.pack("<HH", 0x2000, 0x2000), "no event"),
        (".aedat", b"#!AER-DAT3.1\r\n", "'!AER-DAT3.1' where '#!AER-DAT2.0'"),
        (".aedat", b"version https://git-lfs", "begins with no text"),
        (".aedat4", b"#!AER-DAT4.0\r\n", "points to byte 14"),
        (".npz", b"junk", "no archive of arrays"),
        (".npy", b"junk", "the header of an array is none"),
        (".mat", b"junk", "no MAT file"),
        (".h5", b"version https://git-lfs.github.com/spec/v1", "pointer of Git's large-file store"),
    ],
)
def test_what_is_damaged_is_said(name, blob, got):
    with pytest.raises(UserError, match=got):
        decoded(name, blob)


def arrays(**fields):
    file = io.BytesIO()
    np.savez(file, **fields)
    return file.getvalue()


ONE = np.ones(1, int)


@pytest.mark.parametrize(
    ("fields", "got"),
    [
        ({"x": ONE, "y": ONE, "t": ONE}, "no arrays x, y, t and p, but t, x, y"),
        ({"x": ONE, "y": ONE, "t": ONE, "p": np.ones(2)}, "of several lengths: 1, 2"),
        ({"x": ONE * 0.5, "y": ONE, "t": ONE, "p": ONE}, "x has values that are no whole numbers"),
        ({"x": ONE * np.nan, "y": ONE, "t": ONE, "p": ONE}, "x has values that are no whole numbers"),
        ({"x": ONE * 2**40, "y": ONE, "t": ONE, "p": ONE}, "x has values that are no places"),
        ({"x": -ONE, "y": ONE, "t": ONE, "p": ONE}, "an event has x -1"),
        ({"x": ONE, "y": ONE, "t": ONE, "p": ONE * 2}, "polarity is 2 to 2"),
        ({"x": ONE, "y": ONE, "t": ONE * np.inf, "p": ONE}, "t has values that are no times"),
        ({"x": ONE, "y": ONE, "t": ONE * 2**62, "p": ONE}, "t has values that are no times"),
        ({"x": ONE, "y": ONE, "t": np.array([{}]), "p": ONE}, "where each is to be one row of numbers"),
        ({"x": ONE[None], "y": ONE, "t": ONE, "p": ONE}, "where each is to be one row of numbers"),
    ],
)
def test_arrays_that_are_no_events(fields, got):
    with pytest.raises(UserError, match=got):
        decoded(".npz", arrays(**fields))


def test_an_array_that_says_more_than_is_there(events, written):
    blob = written(".npy", *events(60))
    with pytest.raises(UserError, match="it says 6,000,000,000 values"):
        decoded(".npy", blob.replace(b"(60,), }        ", b"(6000000000,), }"))


def test_more_than_is_read(events, written, monkeypatch):
    monkeypatch.setattr("engram.backbone.data.recordings.events.MOST_EVENTS", 50)
    for name in NAMES:
        with pytest.raises(UserError, match="60 events and at most 50 are read"):
            decoded(name, written(name, *events(60, side=(10, 10))))


@pytest.mark.parametrize("name", NAMES)
def test_mutations_end_in_one_error_or_load(events, written, name):
    random = np.random.default_rng(1)
    whole = written(name, *events(40, side=(10, 10)))
    for _ in range(60):
        blob = bytearray(whole)
        for place in random.integers(0, len(blob), random.integers(1, 6)):
            blob[place] = random.integers(0, 256)
        blob = bytes(blob[: random.integers(0, len(blob))] if random.random() < 0.3 else blob)
        try:
            found = decoded(name, blob)
        except UserError as error:
            assert "\n" not in str(error) and "some." in str(error)
        else:
            assert len(found) and found.p.max() <= 1 and found.x.min() >= 0
