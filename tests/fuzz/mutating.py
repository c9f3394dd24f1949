"""Damaged and hostile files made of whole ones: the same number gives the same bytes."""

import copy
import hashlib
import io
import json
import random
import zipfile

import h5py
import hostile
import numpy as np

NUMBERS = [0, 1, -1, 2, 3, 63, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**62, 10**30]
VALUES = [None, True, "", "a" * 500, "../canary", "/dev/zero", [], {}, [[]], {"a": {"b": []}}, 1e308, float("nan"), 0.5]


def flipped(draw: random.Random, held: bytes) -> bytes:
    """A few bits, bytes, runs, numbers and lengths changed, or its end gone."""
    data = bytearray(held)
    for _ in range(draw.choice([1, 1, 1, 2, 4, 16])):
        place = draw.randrange(max(len(data), 1))
        kind = draw.randrange(7)
        if kind == 0:
            data[place : place + 1] = bytes([(data[place : place + 1] or b"\0")[0] ^ 1 << draw.randrange(8)])
        elif kind == 1:
            data[place : place + 1] = bytes([draw.choice([0, 1, 127, 128, 254, 255, draw.randrange(256)])])
        elif kind == 2:  # a piece from elsewhere over it
            start, length = draw.randrange(max(len(data), 1)), draw.randrange(1, 64)
            data[place : place + length] = data[start : start + length]
        elif kind == 3:  # a number, in either order
            size = draw.choice([2, 4, 8])
            number = draw.choice([*NUMBERS, len(data), len(data) - place]) % (1 << 8 * size)
            data[place : place + size] = number.to_bytes(size, draw.choice(["little", "big"]))
        elif kind == 4:
            del data[place : place + draw.choice([1, 2, 8, 64])]
        elif kind == 5:
            data[place:place] = bytes(draw.choice([1, 4, 33])) if draw.random() < 0.5 else data[place : place + 16]
        elif draw.random() < 0.3:
            del data[place:]
    return bytes(data)


def spliced(draw: random.Random, first: bytes, second: bytes) -> bytes:
    """The beginning of one file and the end of another."""
    return first[: draw.randrange(len(first) + 1)] + second[draw.randrange(len(second) + 1) :]


def bytes_of(draw: random.Random, seeds: list[bytes]) -> bytes:
    held = draw.choice(seeds)
    return spliced(draw, held, draw.choice(seeds)) if draw.random() < 0.05 else flipped(draw, held)


def hdf5(draw: random.Random, seeds: list[bytes]) -> bytes:
    """Bytes changed, or a whole file of HDF5 with other content, or with something hostile in it."""
    way = draw.random()
    if way < 0.55:
        return bytes_of(draw, seeds)
    file = io.BytesIO(draw.choice(seeds))
    with h5py.File(file, "a") as held:
        if way < 0.65:
            _hostile(draw, held)
        else:
            for _ in range(draw.choice([1, 1, 2, 4])):
                _change(draw, held)
    found = file.getvalue()
    return flipped(draw, found) if draw.random() < 0.1 else found


def _hostile(draw: random.Random, held: h5py.File) -> None:
    groups = [held]
    held.visititems(lambda _, each: groups.append(each) if isinstance(each, h5py.Group) else None)
    make = draw.choice(list(hostile.HOSTILE))
    group = draw.choice(groups)
    for name in ("w", "a", "b", "0"):
        if name in group:
            del group[name]
    make(group, "canary")


def _change(draw: random.Random, held: h5py.File) -> None:
    places = []
    held.visit(places.append)
    if not places:
        return
    place = draw.choice(places)
    way = draw.randrange(5)
    old = held[place]
    if way == 0:
        del held[place]
    elif way == 1:  # under another name, or in another's place
        other = draw.choice([*places, place + "x", draw.choice(places) + "/a"])
        if other in held or isinstance(held.get(other.rpartition("/")[0] or "/"), h5py.Dataset):
            return
        held.move(place, other)
    elif isinstance(old, h5py.Group):
        old.create_dataset(f"x{draw.randrange(9)}{len(old)}", data=draw.choice(NUMBERS[:14]))
    else:
        data = _data(draw, old)
        del held[place]
        held.create_dataset(place, data=data)


def _data(draw: random.Random, old: h5py.Dataset):
    found = old[()]
    if old.dtype.kind in "OS":
        return draw.choice(["LOIHI", "CUBA", "SDNN", "conv", "dense", "Affine", "LIF", "Conv2d", "", "x" * 3000, 7])
    values = np.array(found)
    way = draw.randrange(5)
    if way == 0:
        values = values.astype(draw.choice(["u1", "i2", "i8", "f4", "f8", "f2"]))
    elif way == 1 and values.size:
        values = values.astype(np.float64 if draw.random() < 0.5 else np.int64)
        number = draw.choice([float("nan"), float("inf"), -1.5] if values.dtype.kind == "f" else NUMBERS[:14])
        values.reshape(-1)[draw.randrange(values.size)] = number
    elif way == 2:
        values = values.reshape(-1) if draw.random() < 0.5 else values[None]
    elif way == 3:
        values = np.full(draw.choice([(), (1,), (2,), (0,), (3, 3), (5000,), values.shape]), draw.choice(NUMBERS[:14]))
    else:
        values = np.concatenate([values.reshape(-1)] * 2) if draw.random() < 0.5 else values.reshape(-1)[:-1]
    return values


def archive(draw: random.Random, seeds: list[bytes]) -> bytes:
    """Bytes of a zip changed, or one of its members inside of a whole zip."""
    if draw.random() < 0.4:
        return bytes_of(draw, seeds)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(draw.choice(seeds))) as old, zipfile.ZipFile(made, "w") as new:
        members = old.infolist()
        for member in members:
            data = old.read(member)
            if draw.random() < 1.5 / len(members):
                data = changed_json(draw, data) if data[:1] == b"{" else flipped(draw, data)
            packed = zipfile.ZIP_DEFLATED if draw.random() < 0.1 else member.compress_type
            if draw.random() < 0.98:
                new.writestr(member.filename, data, packed)
    return made.getvalue()


def changed_npz(draw: random.Random, seeds: list[bytes]) -> bytes:
    """A network of chip integers: an archive whose header is JSON in an array."""
    if draw.random() < 0.5:
        return archive(draw, seeds)
    with np.load(io.BytesIO(draw.choice(seeds))) as held:
        arrays = dict(held)
    arrays["header"] = np.frombuffer(changed_json(draw, arrays["header"].tobytes()), np.uint8)
    made = io.BytesIO()
    np.savez(made, **arrays)
    return made.getvalue()


def changed_json(draw: random.Random, held: bytes) -> bytes:
    """JSON with values of other kinds and sizes, keys gone and new, or bytes changed."""
    if draw.random() < 0.1:
        return flipped(draw, held)
    tree = json.loads(held)
    for _ in range(draw.choice([1, 1, 2, 3])):
        _place(draw, tree)
    return json.dumps(tree).encode()


def _place(draw: random.Random, tree) -> None:
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = draw.choice(keys)
        inner = node[key]
        if isinstance(inner, dict | list) and inner and draw.random() < 0.8:
            node = inner
            continue
        way = draw.random()
        if way < 0.15:
            del node[key]
        elif way < 0.25 and isinstance(node, dict):
            node[draw.choice(["x", "name", "__class__", key + "x"])] = copy.deepcopy(inner)
        elif way < 0.6:
            node[key] = draw.choice(NUMBERS)
        else:
            node[key] = copy.deepcopy(draw.choice(VALUES))
        return


def checked(draw: random.Random, pairs: list[tuple[bytes, bytes]], change) -> tuple[bytes, bytes]:
    """JSON and the file that it has the sha256 of: one of them changed, the sum right in most cases."""
    manifest, data = draw.choice(pairs)
    if draw.random() < 0.5:
        return changed_json(draw, manifest), data
    data = change(draw, [each for _, each in pairs])
    if draw.random() < 0.9:
        tree = json.loads(manifest)
        tree["sha256"] = hashlib.sha256(data).hexdigest()
        manifest = json.dumps(tree).encode()
    return manifest, data
