import pyarrow as pa
import pytest
import torch

from backbone.data.options import PictureOptions
from backbone.data.parquet import open_parquet
from backbone.errors import UserError


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
    assert "validation-* is left out" in caplog.text


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
    assert opened(table(), PictureOptions(size=4, channels=1)).train.in_shape == (1, 4, 4)


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
        ({"labels": (0, -1, 1), "names": None}, r"at least 0; got -1 in .*parquet row 1"),
        ({"labels": (0, 2**40), "names": None}, r"got 1099511627776 in .*parquet row 1"),
        ({"labels": (0, 1, None)}, r"a label must be given; got none in .*parquet row 2"),
        ({"labels": (0.0, 1.0)}, "whole numbers; got double in column label of .*parquet"),
        ({"labels": ("cat", "dog")}, "whole numbers; got string in column label"),
        ({"labels": (), "label_type": pa.int64()}, "at least one row long; got an empty one: .*parquet"),
        ({"columns": ("img", "target")}, "called one of label, labels, .*; got img, target in .*parquet"),
        ({"columns": ("a", "label"), "extra": {"b": pa.array([b""] * 20)}}, "img; got a, b of a, label, b in"),
        ({"struct": False, "blobs": [b"", b"x"], "labels": (0, 1)}, "an empty one: .*parquet row 0"),
        ({"blobs": [None, b"x"], "labels": (0, 1)}, "an empty one: .*parquet row 0"),
        ({"blobs": [b"x", b"x"], "labels": (0, 1)}, "a damaged one: .*parquet row 0"),
    ],
)
def test_bad_tables(table, opened, change, message):
    with pytest.raises(UserError, match=message) as error:
        opened(table(**change))
    assert all(" must be " in line for line in str(error.value).splitlines())


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


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train-00000-of-00002.parquet"], "complete; got train-00000-of-00002.parquet without train-00001-of-00002"),
        (["test-00000-of-00001.parquet"], "train-.*parquet; got only test-.*Give the file itself: parquet:"),
        (["train-0.parquet", "other.parquet"], "called train-.*; got other.parquet"),
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
