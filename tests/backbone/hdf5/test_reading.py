"""Files that do no harm: each kind of hostile HDF5 file is refused in one sentence, and plain ones are read whole."""

import importlib.util
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


def _hostile():
    spec = importlib.util.spec_from_file_location("hostile", Path(__file__).parents[2] / "fuzz" / "hostile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.HOSTILE


HOSTILE = _hostile()


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
