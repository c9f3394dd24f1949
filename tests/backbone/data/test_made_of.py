"""The files that sets are made of: which, under which words, and what is said where they are not."""

from __future__ import annotations

import shutil

import pytest

from engram.backbone.errors import MissingData, UserError
from engram.backbone.registry import Registry

REGISTRY = Registry.discover()


def test_a_folder_is_known_by_splits_classes_positions_and_names(folder, tmp_path, monkeypatch):
    where = folder({"cat": 2, "a/b": 1})
    found = REGISTRY.files(f"folder:{where}", root=tmp_path)
    assert (found.name, found.where) == ("folder", f"folder:{where}")
    assert found.files == {
        "train/a/b/0/000.png": where / "a" / "b" / "000.png",
        "train/cat/0/000.png": where / "cat" / "000.png",
        "train/cat/1/001.png": where / "cat" / "001.png",
    }
    (where / "cat" / "notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    assert REGISTRY.files("folder:pictures", root=tmp_path) == found
    shown = REGISTRY.files("saccades:folder:pictures", root=tmp_path)
    assert (shown.name, shown.where) == ("saccades:folder", f"saccades:{found.where}")
    assert shown.files == found.files
    assert REGISTRY.files("corrupted:folder:pictures", root=tmp_path).name == "corrupted:folder"


def test_splits_are_words_of_their_own(folder, table, tmp_path):
    folder({"cat": 1, "dog": 1}, name="split/train")
    where = folder({"cat": 1}, name="split/val").parent
    parts = [name.rpartition("/")[0] for name in REGISTRY.files(f"folder:{where}", root=tmp_path).files]
    assert parts == ["train/cat/0", "train/dog/0", "validation/cat/0"]
    one = table()
    assert REGISTRY.files(f"parquet:{one}", root=tmp_path).files == {"train/0": one}
    other = table("test-00000-of-00001.parquet")
    assert REGISTRY.files(f"parquet:{one.parent}", root=tmp_path).files == {"train/0": one, "test/0": other}


def test_all_that_an_option_could_make_a_reader_look_at_is_known(folder, tmp_path):
    for part in ("train", "validation", "test"):
        where = folder({"cat": 1, "dog": 1}, name=f"set/{part}").parent
    for at in ("", "train/", "train/cat/"):
        (where / f"{at}metadata.csv").write_text("file_name,writer\n")
    found = set(REGISTRY.files(f"folder:{where}", root=tmp_path).files)
    assert {"metadata.csv", "train/metadata.csv", "train/cat/metadata.csv", "validation/dog/0/000.png"} <= found
    assert len(found) == 9
    (where / "validation" / "empty").mkdir()  # a part that is usually left out need not be whole
    assert len(REGISTRY.files(f"folder:{where}", root=tmp_path).files) == 7


def test_published_sets_are_known_by_their_files_unless_their_readers_know_a_checksum(idx, table, tmp_path):
    root = idx()
    found = REGISTRY.files("mnist", root=root)
    assert (found.name, found.where) == ("mnist", "mnist")
    assert found.files["t10k-labels-idx1-ubyte"] == root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    assert len(found.files) == 4
    shutil.move(table().parent, root / "cifar10")
    assert set(REGISTRY.files("cifar10", root=root).files) == {"train/0"}
    (root / "cifar-10-batches-py").mkdir()  # what is in there is checked against its md5
    assert REGISTRY.files("cifar10", root=root) is None
    for made_here in ("digits", "glyphs", "moving-shapes", "saccades:digits"):
        assert REGISTRY.files(made_here, root=root) is None


def test_a_drawing_that_stands_in_two_folders_is_one(folder, tmp_path):
    for part in ("images_background_small1", "images_background_small2"):
        folder({"Greek/character01": 2}, name=f"omniglot-py/{part}")
    found = REGISTRY.files("omniglot", root=tmp_path)
    assert set(found.files) == {f"Greek/character01/00{k}.png" for k in (0, 1)}


def test_recordings_without_their_archives(tmp_path):
    for name in ("train.zip", "Train/7/00001.bin", "Test/7/00001.bin"):
        (tmp_path / "NMNIST" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "NMNIST" / name).write_bytes(b"12345")
    found = REGISTRY.files("tonic:nmnist", root=tmp_path)
    assert (found.name, set(found.files)) == ("tonic:nmnist", {"Train/7/00001.bin", "Test/7/00001.bin"})


@pytest.mark.parametrize(
    "name", ["mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "omniglot", "tonic:shd", "saccades:mnist"]
)
def test_what_is_not_there_is_missing(name, tmp_path):
    with pytest.raises(MissingData, match=r"must be under the data root; got nothing .*--download"):
        REGISTRY.files(name, root=tmp_path)


@pytest.mark.parametrize("name", ["folder:nowhere", "parquet:nowhere", "saccades:folder:nowhere"])
def test_a_path_where_nothing_is(name, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        REGISTRY.files(name, root=tmp_path)
