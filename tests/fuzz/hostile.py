"""Every kind of hostile HDF5 file: what is added to a file, and part of the sentence that refuses it."""

import h5py
import numpy as np


def external_values(file, outside):
    file.create_dataset("w", (8,), "u1", external=[(str(outside), 0, 8)])


def external_link(file, outside):
    file["w"] = h5py.ExternalLink(str(outside), "/secret")


def soft_link(file, outside):
    file["w"] = h5py.SoftLink("/elsewhere")


def virtual(file, outside):
    layout = h5py.VirtualLayout((4,), "i4")
    layout[:] = h5py.VirtualSource(str(outside), "secret", (4,))
    file.create_virtual_dataset("w", layout)


def circle(file, outside):
    inner = file.create_group("a/b")
    inner["c"] = file["a"]


def twice(file, outside):
    file["a"] = np.zeros(3)
    file["b"] = file["a"]


def doubling(file, outside):
    """Paths double with every level, objects do not."""
    group = file.create_group("0")
    for _ in range(1, 12):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner


def deep(file, outside):
    file.create_group("/".join("a" * 40))


def many(file, outside):
    for number in range(300):
        file.create_group(str(number))


def reference(file, outside):
    file.create_dataset("w", (1,), h5py.ref_dtype)


def region(file, outside):
    file.create_dataset("w", (1,), h5py.regionref_dtype)


def lists(file, outside):
    file.create_dataset("w", (2,), h5py.vlen_dtype(np.int32))


def compound(file, outside):
    file["w"] = np.zeros(3, [("re", "f4"), ("im", "f4")])


def opaque(file, outside):
    file.create_dataset("w", (2,), h5py.opaque_dtype(np.dtype("M8[us]")))


def named(file, outside):
    file["w"] = np.dtype("f8")


def lzf(file, outside):
    file.create_dataset("w", data=np.zeros(100), compression="lzf")


def fill_values(file, outside):
    file.create_dataset("w", (1 << 20,), "f8")


def packed_zeros(file, outside):
    file.create_dataset("w", data=np.zeros(1 << 20), chunks=(1 << 20,), compression="gzip", compression_opts=9)


def wide_chunk(file, outside):
    file.create_dataset("w", (1,), "u1", chunks=(1 << 30,), maxshape=(None,))


def large(file, outside):
    file["w"] = np.random.default_rng(0).random(3 << 20)


def attribute(file, outside):
    file.attrs["w"] = file.create_group("a").ref


def many_attributes(file, outside):
    for number in range(100):
        file.attrs[str(number)] = 0


def null(file, outside):
    file["w"] = h5py.Empty("f4")


HOSTILE = {
    external_values: "another file",
    external_link: "link to another place or file",
    soft_link: "link to another place or file",
    virtual: "put together from other data sets",
    circle: "by two names",
    twice: "by two names",
    doubling: "by two names",
    deep: "deep",
    many: "more than 200 objects",
    reference: "no numbers or texts",
    region: "no numbers or texts",
    lists: "no numbers or texts",
    compound: "no numbers or texts",
    opaque: "no numbers or texts",
    named: "a type of its own",
    lzf: "a filter other than",
    fill_values: "in 0 stored ones",
    packed_zeros: "stored ones",
    wide_chunk: "stored ones",
    large: "bytes of values",
    attribute: "no numbers or texts at an attribute of /",
    many_attributes: "100 attributes",
    null: "no values",
}
