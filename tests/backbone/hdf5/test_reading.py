"""Files that do no harm: each kind of hostile HDF5 file is refused in one sentence, and plain ones are read whole."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engram.backbone.errors import UserError
from engram.backbone.hdf5 import reading, worker
from engram.backbone.hdf5.reading import Limits, Reader, read

h5py = pytest.importorskip("h5py")
CANARY = b"these bytes stand in another file"


@pytest.fixture(scope="module")
def reader():
    with Reader(Limits(values=1 << 24, objects=200)) as made:
        yield made


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.h5"


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_what_is_written_is_read(reader, path, libver):
    numbers = np.arange(60, dtype=">f4").reshape(3, 4, 5)
    with h5py.File(path, "w", libver=libver) as file:
        file["group/plain"] = numbers
        file.create_dataset(
            "group/packed", data=numbers, chunks=(2, 2, 5), compression="gzip", shuffle=True, fletcher32=True
        )
        file["group/inner/number"] = 7
        file["yes"] = True
        file["text"] = "LOIHI"
        file["latin"] = "Zürich"
        file["fixed"] = np.array([b"dense"], "S10")
        file["edges"] = [["a", "b"], ["b", "c"]]
        file["nothing"] = np.zeros((0, 3), np.int8)
        file.attrs["made by"] = "somebody"
    found = reader.read(path)
    assert found["group"]["plain"].dtype == np.float32 and (found["group"]["plain"] == numbers).all()
    assert (found["group"]["packed"] == numbers).all()
    assert found["group"]["inner"]["number"] == 7 and found["group"]["inner"]["number"].shape == ()
    assert found["yes"].dtype == bool and found["yes"]
    assert (found["text"], found["latin"]) == ("LOIHI", "Zürich")
    assert found["fixed"].tolist() == ["dense"] and found["edges"].tolist() == [["a", "b"], ["b", "c"]]
    assert found["nothing"].shape == (0, 3)
    found["group"]["plain"][0] = 1  # arrays are the reader's own


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


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_hostile_files_are_refused(reader, tmp_path, path, make, libver):
    outside = tmp_path / "outside.h5"
    with h5py.File(outside, "w") as file:
        file["secret"] = np.frombuffer(CANARY[:16], np.int32)
    with h5py.File(path, "w", libver=libver) as file:
        make(file, outside)
    with pytest.raises(UserError, match=HOSTILE[make]) as error:
        reader.read(path, "Write it again.")
    assert str(error.value).endswith("Write it again.") and "\n" not in str(error.value)


def test_what_is_no_hdf5_file(tmp_path, path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1489208\n")
    with pytest.raises(UserError, match=r"not an HDF5 file; it is a pointer .* git lfs pull"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="not an HDF5 file"):
        read(path)
    with pytest.raises(UserError, match="must be a file; got nothing there"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match="must be a file; got a folder"):
        read(tmp_path)
    path.write_bytes(reading.SIGNATURE + bytes(100))
    with pytest.raises(UserError, match="must be a whole HDF5 file"):
        read(path)
    with pytest.raises(UserError, match="at most 50 bytes"):
        read(path, Limits(file=50))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_not_waited_for(path):
    os.mkfifo(path)
    with pytest.raises(UserError, match="must be a file"):
        read(path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
def test_the_end_of_the_process_is_an_error(path):
    """A file that makes the library hang ends the process that reads it, and the next file is read by another."""
    with h5py.File(path, "w") as file:
        file["w"] = 1
    with Reader() as reader:
        reader.tree(path.read_bytes(), "f")
        assert reader.process is not None
        reader.process.kill()
        with pytest.raises(UserError, match="ends the process that reads it"):
            reader.tree(path.read_bytes(), "f")
        assert reader.tree(path.read_bytes(), "f")["w"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
def test_the_process_that_reads_can_open_nothing(tmp_path):
    """Whatever a file makes the library do: what it would read is not there to be opened."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(worker.__file__).parent)!r}); import worker; "
        "worker.confine(1 << 32)\n"
        f"try: open({str(tmp_path / 'canary')!r})\n"
        "except OSError as error: print(error.errno)"
    )
    (tmp_path / "canary").write_bytes(CANARY)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 24  # too many open files
