"""Writers of every format of recordings, straight from the formats' words; the readers are held against them."""

import io
import struct

import numpy as np
import pyarrow as pa
import pytest
import scipy.io

KEYS = "txyp"


def made(count=60, side=(30, 20), last=100_000, seed=0, first=1):
    """Events in the order of their times: t, x, y, p."""
    random = np.random.default_rng(seed)
    t = np.sort(random.integers(first, last, count))
    return t, random.integers(0, side[0], count), random.integers(0, side[1], count), random.integers(0, 2, count)


@pytest.fixture
def events():
    return made


def nmnist(t, x, y, p):
    return b"".join(
        bytes((a, b)) + (c << 23 | d).to_bytes(3, "big")
        for d, a, b, c in zip(*(values.tolist() for values in (t, x, y, p)), strict=True)
    )


def dat(t, x, y, p, text="% Version 2\n% Width 30\n% Height 20\n"):
    words = np.stack([t.astype(np.uint32), (x | y << 14 | p << 28).astype(np.uint32)], 1)
    return text.encode() + b"\x00\x08" + words.astype("<u4").tobytes()


def evt2(t, x, y, p, text="% evt 2.0\n% geometry 30x20\n"):
    words, high = [], None
    for time, column, row, sign in zip(*(values.tolist() for values in (t, x, y, p)), strict=True):
        if time >> 6 != high:
            high = time >> 6
            words.append(0x8 << 28 | high & 0xFFFFFFF)
        words.append(sign << 28 | (time & 63) << 22 | column << 11 | row)
    return text.encode() + np.array(words, "<u4").tobytes()


def evt3(t, x, y, p, text="% evt 3.0\n% format EVT3;height=20;width=30\n"):
    words, high, low = [], None, None
    for time, column, row, sign in zip(*(values.tolist() for values in (t, x, y, p)), strict=True):
        if time >> 12 != high:
            high, low = time >> 12, 0
            words.append(0x8000 | high & 0xFFF)
        if time & 0xFFF != low:
            low = time & 0xFFF
            words.append(0x6000 | low)
        words += [row, 0x2000 | sign << 11 | column]
    return text.encode() + np.array(words, "<u2").tobytes()


def aedat2(t, x, y, p, chip="eu.seebetter.ini.chips.davis.DAVIS240C"):
    text = f"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n# AEChip: {chip}\r\n#End Of ASCII Header\r\n"
    if "DVS128" in chip:
        address = (127 - x) << 1 | (127 - y) << 8 | (1 - p)
    else:
        width, height = (240, 180) if "240" in chip else (346, 260)
        address = (width - 1 - x) << 12 | (height - 1 - y) << 22 | p << 11
    return text.encode() + np.stack([address, t], 1).astype(">u4").tobytes()


def flat_events(t, x, y, p):
    """An event packet with its size in front."""
    rows = np.zeros(len(t), np.dtype({"names": list(KEYS), "formats": ["<i8", "<i2", "<i2", "?"], "itemsize": 16}))
    for name, values in zip(KEYS, (t, x, y, p), strict=True):
        rows[name] = values
    # root offset, identifier, vtable (6 bytes: its size, the table's, field 0 at 4), table, vector
    body = struct.pack("<I4sHHHHiI", 16, b"EVTS", 0, 6, 8, 4, 6, 8) + bytes(4) + struct.pack("<I", len(t))
    body += rows.tobytes()
    return struct.pack("<I", len(body)) + body


def aedat4(t, x, y, p, codec=None, number=0, others=()):
    """A file of packets of 25 events; ``others``: packets of another kind in between."""
    info = (
        b'<dv version="2.0"><node name="0"><attr key="typeIdentifier" type="string">EVTS</attr>'
        b'<attr key="sizeX" type="int">30</attr><attr key="sizeY" type="int">20</attr></node></dv>'
    )
    table = struct.pack("<iiqI", 10, number, -1, 4) + struct.pack("<I", len(info)) + info + b"\0"
    body = struct.pack("<I4s", 18, b"IOHE") + struct.pack("<HHHHH", 10, 20, 4, 8, 16) + table
    held = b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(body)) + body
    packets = [flat_events(*(values[k : k + 25] for values in (t, x, y, p))) for k in range(0, len(t), 25)]
    for stream, packet in [*((0, packet) for packet in packets), *((1, other) for other in others)]:
        data = packet if codec is None else pa.compress(packet, codec=codec, asbytes=True)
        held += struct.pack("<ii", stream, len(data)) + data
    return held


def npz(t, x, y, p):
    file = io.BytesIO()
    np.savez_compressed(file, t=t, x=x.astype(np.int16), y=y.astype(np.int16), p=p.astype(bool))
    return file.getvalue()


def npy(t, x, y, p):
    rows = np.zeros(len(t), [("x", "u2"), ("y", "u2"), ("ts", "i8"), ("polarity", "i1")])
    rows["ts"], rows["x"], rows["y"], rows["polarity"] = t, x, y, 2 * p - 1
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def stmnist(t, x, y, p, compress=True):
    matrix = np.zeros((101, len(t)))
    matrix[10 * y + x, np.arange(len(t))] = 2 * p - 1
    matrix[-1] = t / 1e6
    file = io.BytesIO()
    scipy.io.savemat(file, {"before": np.ones(3), "spiketrain": matrix}, do_compression=compress)
    return file.getvalue()


WRITERS = {
    ".bin": nmnist,
    ".dat": dat,
    ".raw": evt3,
    ".aedat": aedat2,
    ".aedat4": aedat4,
    ".npz": npz,
    ".npy": npy,
    ".mat": stmnist,
}


@pytest.fixture
def written():
    """``written(suffix, *events, **options)``: the bytes of a file."""

    def write(suffix, *fields, **options):
        names = {"evt2": evt2, "evt3": evt3, **WRITERS}
        return names[suffix](*fields, **options)

    return write
