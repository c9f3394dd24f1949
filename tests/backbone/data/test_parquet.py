import os
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from engram.backbone.data.options import PartOptions
from engram.backbone.data.parquet import open_parquet
from engram.backbone.data.table import Table
from engram.backbone.data.tables import find_tables
from engram.backbone.errors import UserError


@pytest.fixture
def opened(tmp_path):
    def open_it(where, options=None, budget=2**30):
        return open_parquet(str(where), options, root=tmp_path, download=False, budget_bytes=budget)

    return open_it


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize(
    "columns", [("img", "label"), ("image", "labels"), ("photo", "fine_label"), ("x", "coarse_label")]
)
def test_one_file_is_one_split(table, opened, images, struct, columns):
    source = opened(table(struct=struct, columns=columns))
    assert source.classes == ("cat", "dog")
    assert source.test is None
    assert source.train.labels.tolist() == [0, 1] * 10
    expected = torch.from_numpy(images(20, (8, 8, 3))).permute(0, 3, 1, 2)
    assert torch.equal(source.train.images, expected)


def test_parts_and_shards(table, opened, tmp_path):
    table("train-00000-of-00002.parquet", labels=(0, 1, 0), seed=1)
    table("train-00001-of-00002.parquet", labels=(1, 1), seed=2)
    table("test-00000-of-00001.parquet", labels=(0,), seed=3)
    source = opened(tmp_path / "tables")
    assert source.train.labels.tolist() == [0, 1, 0, 1, 1]
    assert source.test.labels.tolist() == [0]


def test_validation_stands_in_for_test(table, opened, tmp_path, caplog):
    table("data/train-00000-of-00001.parquet")
    table("data/validation-00000-of-00001.parquet", labels=(0, 1))
    assert len(opened(tmp_path / "tables").test) == 2
    table("data/test-00000-of-00001.parquet", labels=(0, 1, 1))
    assert len(opened(tmp_path / "tables").test) == 3
    assert "validation-00000-of-00001.parquet is left out, as there is test-00000-of-00001.parquet" in caplog.text


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train_0", "test_0"),
        ("Train", "TEST"),
        ("training-part-0.snappy", "dev"),
        ("train-00000-of-00001-b42a27a2bbbb2fd7", "test-00000-of-00001-1f3ba1f5c2f9d7a0"),
        ("train/0000", "test/0000"),
        ("train.parquet/part-00000", "valid/part-00000"),
    ],
)
def test_names_of_parts(table, opened, tmp_path, train, test):
    table(f"{train}.parquet", seed=1)
    table(f"{test}.parquet", labels=(0, 1), seed=2)
    source = opened(tmp_path / "tables")
    assert (len(source.train), len(source.test)) == (20, 2)


def test_files_without_part_names_are_one_split(table, opened, tmp_path):
    table("a.parquet")
    table("b.parquet", seed=2)
    source = opened(tmp_path / "tables")
    assert (len(source.train), source.test) == (40, None)


def test_fine_labels_go_before_coarse_ones(table, opened):
    coarse = {"coarse_label": pa.array([7] * 20)}
    assert opened(table(columns=("img", "fine_label"), extra=coarse)).classes == ("cat", "dog")


def test_without_names_the_numbers_are_the_names(table, opened):
    assert opened(table(names=None, labels=(0, 2, 1))).classes == ("0", "1", "2")


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int32(), pa.uint64()])
def test_any_whole_numbers(table, opened, kind):
    assert opened(table(label_type=kind)).train.labels.tolist() == [0, 1] * 10


def test_options(table, opened):
    assert opened(table(), PartOptions(size=4, channels=1)).train.in_shape == (1, 4, 4)


def test_fingerprint_knows_every_byte_label_and_name(table, opened, images, png):
    blobs = [png(image) for image in images(20, (8, 8, 3))]
    found = [opened(table()).fingerprint, opened(table(blobs=blobs)).fingerprint]
    assert found[0] == found[1]
    found.append(opened(table(labels=(0, 1) * 9 + (1, 1))).fingerprint)
    found.append(opened(table(names=("cat", "cow"))).fingerprint)
    found.append(opened(table(blobs=[*blobs[:-1], blobs[-1] + b"\0"])).fingerprint)
    assert len(set(found)) == 4


def test_fingerprint_does_not_depend_on_how_the_table_is_written(table, opened):
    assert opened(table(row_group_size=3)).fingerprint == opened(table(row_group_size=20, struct=False)).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": (0, 1, 2)}, r"from 0 to 1, .*names 2 classes; got 2 in .*parquet row 2\."),
        ({"labels": (0, -1, 1)}, r"got -1 in .*parquet row 1\. .*hidden"),
        ({"labels": (0, -1, 1), "names": None}, r"from 0 to 65535, as .* numbered; got -1 in .*parquet row 1"),
        ({"labels": (0, 2_000_000_000), "names": None}, r"from 0 to 65535.* got 2000000000 in .*parquet row 1"),
        ({"names": ("cat", "\ud800")}, r"the name of a class must be in UTF-8; got '.ud800' in .*parquet"),
        ({"labels": (0, 1, None)}, r"a label must be given; got none in .*parquet row 2"),
        ({"labels": (0.0, 1.0)}, "whole numbers; got double in column label of .*parquet"),
        ({"labels": ("cat", "dog")}, "whole numbers; got string in column label"),
        ({"labels": (), "label_type": pa.int64()}, "at least one row long; got an empty one: .*parquet"),
        ({"columns": ("img", "target")}, "called one of label, labels, .*; got img, target in .*parquet"),
        ({"columns": ("a", "label"), "extra": {"b": pa.array([b""] * 20)}}, "img; got a, b of a, label, b in"),
        ({"blobs": [None, None], "labels": (0, 1)}, "in it, as bytes; got paths alone in column img of .*parquet"),
        ({"blobs": ["x", "y"], "labels": (0, 1), "kind": pa.string()}, r"got img \(string\), label \(int64\) in"),
        (
            {"blobs": [{"path": "x"}], "labels": (0,), "kind": pa.struct([("path", pa.string())])},
            "in it, as bytes; got paths alone in column img of .*parquet",
        ),
        ({"struct": False, "blobs": [b"", b"x"], "labels": (0, 1)}, "an empty one: .*parquet row 0"),
        ({"blobs": [None, b"x"], "labels": (0, 1)}, "an empty one: .*parquet row 0"),
        ({"blobs": [b"x", b"x"], "labels": (0, 1)}, "a damaged one: .*parquet row 0"),
    ],
)
def test_bad_tables(table, opened, change, message):
    with pytest.raises(UserError, match=message) as error:
        opened(table(**change))
    assert all(" must be " in line for line in str(error.value).splitlines())


@pytest.mark.parametrize(
    "kind", [pa.dictionary(pa.int32(), pa.binary()), pa.large_binary(), pa.binary_view(), "fixed", "struct"]
)
def test_pictures_in_any_binary_column(table, opened, images, png, kind):
    blobs = [png(image) for image in images(20, (8, 8, 3))]
    longest = max(map(len, blobs))
    if kind == "fixed":  # what comes behind the end of a picture is nobody's business
        blobs, kind = [blob.ljust(longest, b"\0") for blob in blobs], pa.binary(longest)
    elif kind == "struct":
        kind = pa.struct([("bytes", pa.dictionary(pa.int32(), pa.binary())), ("path", pa.string())])
        blobs = [{"bytes": blob} for blob in blobs]
    expected = torch.from_numpy(images(20, (8, 8, 3))).permute(0, 3, 1, 2)
    for columns in (("image", "label"), ("photo", "label")):
        assert torch.equal(opened(table(blobs=blobs, kind=kind, columns=columns)).train.images, expected)


@pytest.fixture
def repeated():
    """A column of one value, written once."""

    def make(value, rows):
        return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value], pa.binary()))

    return make


def test_small_files_that_unpack_to_much(table, repeated):
    where = table()
    held = pa.table({"image": repeated(bytes(8 * 2**20), 4000), "label": pa.array([0, 1] * 2000)})
    pq.write_table(held, where, compression="zstd", compression_level=19)
    with pytest.raises(UserError, match=r"fewer than its bytes; got 4,000 in [0-9,]+ bytes: .*parquet"):
        find_tables(str(where))
    held = pa.table({"image": pa.array([bytes(2**25), bytes(2**25 + 2**20)]), "label": pa.array([0, 1])})
    pq.write_table(held, where, compression="zstd")
    with pytest.raises(UserError, match=r"at most [0-9,]+ bytes when unpacked.*; got 68,[0-9,]+ in .*parquet"):
        find_tables(str(where))


def test_equal_pictures_are_held_once(table, repeated):
    blobs, noise = repeated(bytes(2**20), 300), np.random.default_rng(0).bytes(3000)
    extra = {"noise": pa.array([noise[at : at + 10] for at in range(0, 3000, 10)])}
    where = table(labels=(0,) * 300, blobs=blobs, kind=blobs.type, columns=("img", "label"), extra=extra)
    found = Table.open(where).pictures(0)
    assert len({id(blob) for blob in found}) == 1
    bounded = replace(Table.open(where), limit=2**20 - 1)
    with pytest.raises(UserError, match=r"at most 1,048,575 bytes when unpacked, .*; got 1,048,576"):
        bounded.pictures(0)


def test_fewer_pictures_than_rows(table):
    found = Table.open(table())
    with pytest.raises(UserError, match=r"a readable parquet file; got .*parquet \(4 pictures in 5 rows\)"):
        replace(found, sizes=(5, 4, 4, 4, 4)).pictures(0)


def test_files_that_are_no_regular_ones(table, opened, tmp_path):
    table("train.parquet")
    os.mkfifo(tmp_path / "tables" / "test.parquet")
    with pytest.raises(UserError, match=r"a table must be a regular file; got a named pipe: .*test\.parquet"):
        opened(tmp_path / "tables")
    with pytest.raises(UserError, match=r"a table must be a regular file; got a device: /dev/zero"):
        opened("/dev/zero")
    odd = (tmp_path / "tables" / "train.parquet").rename(tmp_path / os.fsdecode(b"\xe9.parquet"))
    with pytest.raises(UserError, match=r"the name of a table must be in UTF-8; got .*/.xe9\.parquet\. Rename it"):
        opened(odd)


def test_the_row_of_a_damaged_picture_is_named_across_tables(table, opened, images, png, tmp_path):
    blobs = [png(image) for image in images(20, (8, 8, 3))]
    blobs[13] = blobs[13][:80]
    table()
    table("test-00000-of-00001.parquet", blobs=blobs)
    for budget in (0, 2**30):
        with pytest.raises(
            UserError, match=r"a damaged one: .*test-00000-of-00001.parquet row 13 \(it ends too early\)"
        ):
            opened(tmp_path / "tables", budget=budget)


@pytest.mark.parametrize("share", [0, 0.05, 0.5, 0.99])
def test_truncated_tables(table, opened, share):
    where = table(labels=(0, 1) * 100)
    blob = where.read_bytes()
    where.write_bytes(blob[: int(len(blob) * share)])
    with pytest.raises(UserError, match=r"a readable parquet file; got .*parquet \(.*\)\. Restore it\.") as error:
        opened(where)
    assert "\n" not in str(error.value)


def test_flipped_bytes_are_found(table, opened):
    where = table(labels=(0, 1) * 100)
    good = where.read_bytes()
    before = opened(where).fingerprint
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    for at in range(10, footer, footer // 40):
        where.write_bytes(good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :])
        try:
            after = opened(where).fingerprint
        except UserError:
            continue
        assert after == before, at  # the byte belongs to something nobody reads


def test_flipped_bytes_of_what_a_file_says_of_itself_end_in_one_error_at_most(table, opened):
    """It has no checksum. Some flips pyarrow finds, some we do, and some mean something else."""
    where = table(labels=(0, 1) * 4)
    good = where.read_bytes()
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    for at in range(footer, len(good) - 8, 7):
        where.write_bytes(good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :])
        with suppress(UserError):
            opened(where)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train-00000-of-00002.parquet"], "complete; got train-00000-of-00002.parquet without train-00001-of-00002"),
        (
            ["train-00000-of-00003-b42a27a2.parquet", "train-00002-of-00003-1f3ba1f5.parquet"],
            "complete; got train-00000-of-00003-b42a27a2.parquet without train-00001-of-00003",
        ),
        (["train-1-of-999999999999.parquet"], "complete; got .* without train-2-of-999999999999"),
        (["train-0-of-1.parquet", "train-0-of-1-abc.parquet"], "of one series; got .* beside .*Take away"),
        (["train-0-of-1.parquet", "train-0-of-2.parquet"], "of one series; got train-0-of-2.parquet beside"),
        (["test-00000-of-00001.parquet"], "a train split in it; got only test-.*Give the split itself: parquet:"),
        (["train-0.parquet", "other.parquet"], "called as a split .*; got other.parquet"),
        (["mnist_train.parquet", "mnist_test.parquet"], "called as a split .*; got mnist_test.parquet"),
        (["trainval.parquet"], "called as a split .*; got trainval.parquet.*give one file alone"),
        (["train/test_0.parquet"], "of the train split; got test_0.parquet"),
        ([], "a parquet file or a folder of them; got .* with no .*parquet in it"),
    ],
)
def test_bad_folders(table, opened, tmp_path, files, message):
    (tmp_path / "tables").mkdir()
    for file in files:
        table(file)
    with pytest.raises(UserError, match=message):
        opened(tmp_path / "tables")


def test_tables_must_agree(table, opened, tmp_path):
    table()
    table("test-00000-of-00001.parquet", names=("cat", "cow"))
    with pytest.raises(UserError, match=r"the same in all tables as in .*train-.*got \('cat', 'cow'\) in .*test-"):
        opened(tmp_path / "tables")
    table("test-00000-of-00001.parquet", columns=("img", "labels"))
    with pytest.raises(UserError, match=r"'label' as in .*train-.*got 'labels' in .*test-"):
        opened(tmp_path / "tables")


def test_nothing_there(opened, tmp_path):
    with pytest.raises(
        UserError, match=r"parquet:PATH must be a parquet file .*; got nothing at /.*none\. Check the path"
    ):
        opened(tmp_path / "none")
