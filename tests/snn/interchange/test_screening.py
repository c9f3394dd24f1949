"""A screened network file, written anew for libraries that read HDF5 themselves, holds the same."""

import numpy as np
import pytest

from engram.backbone.hdf5.reading import read
from engram.snn.interchange.screening import as_hdf5, screened

h5py = pytest.importorskip("h5py")


def test_a_clean_copy_is_the_same(tmp_path):
    with h5py.File(tmp_path / "a.nir", "w") as file:
        file["node/type"] = "NIRGraph"
        file["node/edges"] = [["in", "out"]]
        file.create_dataset("node/w", data=np.eye(3), compression="gzip")
        file["node/n"] = 3
    tree = screened(tmp_path / "a.nir", "Export it again.")
    (tmp_path / "b.nir").write_bytes(as_hdf5(tree).getvalue())
    copy = read(tmp_path / "b.nir")
    assert copy["node"]["type"] == "NIRGraph" and copy["node"]["edges"].tolist() == [["in", "out"]]
    assert (copy["node"]["w"] == np.eye(3)).all() and copy["node"]["n"].shape == ()
    assert list(copy["node"]) == list(tree["node"])
