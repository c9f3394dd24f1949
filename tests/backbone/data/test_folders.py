import os
import socket
from pathlib import Path

import pytest
import torch
from PIL import Image

from engram.backbone.data import pictures
from engram.backbone.data.checking import check_folder
from engram.backbone.data.encoded import FORMATS, SUFFIXES
from engram.backbone.data.folders import open_folder
from engram.backbone.data.options import FolderOptions
from engram.backbone.errors import UserError


@pytest.fixture
def opened(tmp_path):
    def open_it(where, options=None, budget=2**30):
        return open_folder(str(where), options, root=tmp_path, download=False, budget_bytes=budget)

    return open_it


def test_classes_are_folders_in_the_order_of_their_names(folder, opened):
    source = opened(folder({"dog": 3, "cat": 2, "Ape": 1}))
    assert source.classes == ("Ape", "cat", "dog")
    assert source.train.labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert source.train.in_shape == (1, 8, 8)
    assert source.test is None


def test_nested_classes(folder, opened):
    source = opened(folder({"Greek/character02": 2, "Greek/character01": 1, "Latin/character01": 1}))
    assert source.classes == ("Greek/character01", "Greek/character02", "Latin/character01")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("train", "val"),
        ("train", "valid"),
        ("train", "validation"),
        ("Train", "Test"),
        ("TRAINING", "testing"),
        ("training_set", "dev"),
        ("train_0", "test_0"),
        ("train2017", "val2017"),
    ],
)
def test_parts(folder, opened, train, test):
    source = opened(folder({f"{train}/a": 3, f"{train}/b": 2, f"{test}/b": 4}))
    assert source.classes == ("a", "b")
    assert (len(source.train), source.test.labels.tolist()) == (5, [1, 1, 1, 1])


def test_numbered_folders_of_one_split_are_one(folder, opened):
    source = opened(folder({"train_0/a": 3, "train_1/a": 2, "train_1/b": 2, "test/b": 1, "notes": 0}))
    assert source.train.labels.tolist() == [0] * 5 + [1] * 2
    assert len(source.test) == 1


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({"seg_train/a": 2, "seg_test/a": 2, "seg_pred/a": 2}, "seg_test, seg_train"),
        ({"train/a": 2, "test/a": 2, "extra/a": 2}, "test, train"),
        ({"train/a": 2, "holdout/a": 2}, "train"),
        ({"archive/Train/a": 2, "archive/Test/a": 2}, "Test, Train"),
        ({"cat/train": 2, "cat/test": 2, "dog/train": 2, "dog/test": 2}, "test, train"),
        ({"cat": 2, "dog": 2, "test": 2}, "test"),
        ({"images_train": 2, "images_test": 2}, "images_test, images_train"),
        ({"train/train/a": 2, "train/val/a": 2}, "train, val"),
    ],
)
def test_what_looks_like_splits_but_is_not_understood_is_refused(folder, opened, counts, found):
    with pytest.raises(UserError, match=rf"must be classes, or splits alone \(train, .*\); got {found}\."):
        opened(folder(counts))


@pytest.mark.parametrize("classes", [("cat", "test tube", "train station"), ("invalid", "valid"), ("car", "train")])
def test_classes_whose_names_hold_words_of_splits(folder, opened, classes):
    assert opened(folder(dict.fromkeys(classes, 2))).classes == classes


def test_no_picture_of_a_test_folder_is_trained_on(folder, opened):
    source = opened(folder({"Train/cat": 3, "Train/dog": 3, "Test/cat": 2, "Test/dog": 2}))
    assert source.classes == ("cat", "dog")
    assert (len(source.train), len(source.test)) == (6, 4)


def test_test_goes_before_val(folder, opened, caplog):
    source = opened(folder({"train/a": 3, "test/a": 1, "val/a": 2}))
    assert len(source.test) == 1
    assert "val is left out" in caplog.text


def test_train_alone_and_a_class_called_train(folder, opened):
    assert opened(folder({"train/a": 3, "train/b": 3}, name="one")).test is None
    assert opened(folder({"train": 3, "car": 3}, name="two")).classes == ("car", "train")


def test_other_and_hidden_files_are_passed_over_and_counted(folder, opened, caplog):
    where = folder({"a": 2, "b": 2})
    before = opened(where).fingerprint
    assert not caplog.text
    (where / "README.md").write_text("hello")
    (where / "a" / ".hidden.png").write_bytes(b"x")
    (where / "a" / "notes.txt").write_text("hello")
    (where / "a" / "photo.heic").write_text("hello")
    (where / "a" / "photo").write_text("hello")
    (where / ".cache").mkdir()
    assert opened(where).fingerprint == before
    assert "no pictures by their names: 1 .heic, 1 .md, 1 .txt, 1 hidden, 1 without a suffix" in caplog.text


def test_every_suffix_of_the_formats_that_are_decoded(folder, opened):
    Image.init()
    theirs = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert theirs <= SUFFIXES
    where = folder({"a": 1, "b": 1})
    for suffix in sorted(SUFFIXES):
        (where / "a" / f"x{suffix.upper()}").write_bytes((where / "a" / "000.png").read_bytes())
    assert len(opened(where).train) == 2 + len(SUFFIXES)


def test_files_that_are_no_regular_ones_are_refused_at_once(folder, opened):
    where = folder({"a": 2, "b": 2})
    (where / "a" / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(where / "a" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(where / "b" / "s.png"))
        with (where / "b" / "large.png").open("wb") as sparse:
            sparse.truncate(2**40)
        with pytest.raises(UserError) as error:
            opened(where)
    lines = [line.partition("; got ")[2].partition(". ")[0] for line in str(error.value).splitlines()]
    assert [line.replace(f"{where}/", "") for line in lines] == [
        "a named pipe: a/pipe.png",
        "a device: a/zero.png",
        "1,099,511,627,776 in b/large.png",
        "a socket: b/s.png",
    ]


def test_names_that_are_not_utf_8(folder, opened):
    where = folder({"a": 2, "b": 2})
    odd = (where / "a" / "000.png").rename(where / "a" / os.fsdecode(b"caf\xe9.png"))
    assert len(opened(where).train) == 4
    odd.write_bytes(b"x")
    with pytest.raises(UserError, match=r"got a damaged one: .*/a/caf\\xe9.png"):
        opened(where)
    (where / "a").rename(where / os.fsdecode(b"caf\xe9"))
    with pytest.raises(UserError, match=r"the name of a class must be in UTF-8; got .*/caf\\xe9\. Rename") as error:
        opened(where)
    str(error.value).encode()


def test_links_are_followed_but_not_in_circles(folder, opened):
    where = folder({"a": 2, "b": 2})
    (where / "a" / "back").symlink_to(where)
    (where / "c").symlink_to(folder({"x": 3}, name="elsewhere") / "x")
    source = opened(where)
    assert source.classes == ("a", "b", "c")
    assert len(source.train) == 7


def test_fingerprint_knows_every_byte_label_and_name_and_how_they_are_read(folder, opened, monkeypatch):
    where = folder({"a": 3, "b": 3})
    found = [opened(where).fingerprint, opened(where).fingerprint]
    assert found[0] == found[1]
    (where / "a" / "000.png").rename(where / "b" / "a.png")  # another label
    found.append(opened(where).fingerprint)
    (where / "b").rename(where / "c")  # another name
    found.append(opened(where).fingerprint)
    blob = (where / "c" / "001.png").read_bytes()
    (where / "c" / "001.png").write_bytes(blob + b"\0")  # one byte that no decoder looks at
    found.append(opened(where).fingerprint)
    monkeypatch.setattr(pictures, "_READING", "as it was before EXIF was looked at")  # other pixels of the same bytes
    found.append(opened(where).fingerprint)
    assert len(set(found)) == 5


def test_options(folder, opened):
    where = folder({"a": 2, "b": 2}, (8, 9, 3))
    assert opened(where, FolderOptions(size=4, channels=1)).train.in_shape == (1, 4, 4)


def test_the_first_odd_file_is_named(folder, opened):
    folder({"a": 2, "b": 2})
    where = folder({"c": 3}, (8, 9))
    with pytest.raises(UserError, match=r"8 x 8 pixels like .*a/000.png\); got 9 x 8 in .*c/000.png.*--dataset.size 8"):
        opened(where)
    assert opened(where, FolderOptions(size=8)).train.in_shape == (1, 8, 8)


def test_a_damaged_file_is_named(folder, opened):
    where = folder({"a": 2, "b": 400})
    (where / "b" / "333.png").write_bytes((where / "b" / "333.png").read_bytes()[:70])
    for budget in (0, 2**30):
        with pytest.raises(UserError, match=r"a damaged one: .*b/333.png \(.*\)\. Restore it"):
            opened(where, budget=budget)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "an empty one"),
        ({"a": 2, "b": 0}, "at least one picture; got none in .*/b. Add"),
        ({".": 1, "a": 1}, "in the folder of its class; got .*000.png"),
        ({"train/a": 1, "test/b": 1}, r"in the train set too; got 'b' \(.*test/b\)"),
        ({"test/a": 1}, "with a train split in it; got only test. Give the split itself: folder:"),
        ({"Dev/a": 1, "TEST_1/a": 1}, "with a train split in it; got only Dev, TEST_1. Give the split itself: folder:"),
        ({"train/a": 1, "test": 0}, "an empty one"),
    ],
)
def test_bad_layouts(folder, opened, counts, message):
    with pytest.raises(UserError, match=message) as error:
        opened(folder(counts))
    assert "\n" not in str(error.value)


def test_nothing_there(opened, tmp_path):
    (tmp_path / "file").write_text("")
    for where in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(UserError, match=r"a folder; got nothing of the kind at /.*Check the path"):
            opened(where)


def spoil(where, folder):
    """Everything at once: another size, another colour, two damaged pictures."""
    for source, kind in (((9, 8), "size"), ((8, 8, 3), "colour")):
        (folder({"x": 2}, source, name=kind) / "x" / "000.png").rename(where / "b" / f"{kind}.png")
        (where.parent / kind / "x" / "001.png").rename(where / "b" / f"{kind}-too.png")
    (where / "a" / "empty.png").write_bytes(b"")
    (where / "a" / "short.png").write_bytes((where / "a" / "000.png").read_bytes()[:-9])
    Image.new("L", (8, 8), 7).save(where / "a" / "whole.jpg")
    blob = (where / "a" / "whole.jpg").read_bytes()
    (where / "a" / "short.jpg").write_bytes(blob[: len(blob) // 2])


def test_all_problems_of_the_pictures_come_at_once(folder, opened):
    where = folder({"a": 3, "b": 3})
    assert check_folder(str(where), None, root=where, download=False, training=True) == []
    spoil(where, folder)
    found = check_folder(str(where), None, root=where, download=False, training=True)
    assert [line.partition(" (")[0].replace(f"{where}/", "") for line in sorted(found)] == [
        "a picture must be a readable file; got a damaged one: a/short.jpg",
        "a picture must be a readable file; got a damaged one: a/short.png",
        "a picture must be a readable file; got an empty one: a/empty.png. Restore it or take it out of the set.",
        "every picture of the set must be 8 x 8 pixels like the first one",
        "every picture of the set must be grey like the first one",
    ]
    assert any("got 8 x 9 in" in line and "/b/size-too.png and 1 more. Resize all" in line for line in found)
    assert any("3 channels in" in line and "/b/colour-too.png and 1 more." in line for line in found)
    with pytest.raises(UserError) as error:  # whoever opens the set anyway is told the same
        opened(where)
    assert sorted(str(error.value).splitlines()) == sorted(found)
    options = FolderOptions(size=8, channels=1)
    assert len(check_folder(str(where), options, root=where, download=False, training=True)) == 3


def test_many_damaged_pictures_are_counted(folder):
    where = folder({"a": 15, "b": 3})
    for path in (where / "a").iterdir():
        path.write_bytes(b"x")
    found = check_folder(str(where), None, root=where, download=False, training=True)
    assert len(found) == 11
    assert "got 5 more of 18 damaged" in found[-1]


def test_all_problems_of_the_layout_come_at_once(folder):
    where = folder({"train/a": 2, "train/b": 0, "train/c": 0, "test/a": 1, "test/d": 0})
    found = check_folder(str(where), None, root=where, download=False, training=True)
    assert len(found) == 3
    assert all("at least one picture; got none in" in line for line in found)
    where = folder({"train/a": 2, "test/x": 1, "test/y": 1}, name="two")
    found = check_folder(str(where), None, root=where, download=False, training=True)
    assert [line.partition("; got ")[2].partition(" ")[0] for line in found] == ["'x'", "'y'"]


def test_one_class_alone_can_be_scored_but_not_learned(folder):
    where = str(folder({"a": 3}))
    (found,) = check_folder(where, None, root=Path(where), download=False, training=True)
    assert "at least two classes; got a alone" in found
    assert check_folder(where, None, root=Path(where), download=False, training=False) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(folder, opened):
    where = folder({"a": 2, "b": 2})
    (where / "a" / "000.png").chmod(0)
    with pytest.raises(UserError, match=r"000.png \(Permission denied\)"):
        opened(where)
    (where / "b").chmod(0)
    with pytest.raises(UserError, match=r"readable; got .*b \(Permission denied\)"):
        opened(where)
    (where / "b").chmod(0o755)


def test_images_do_not_depend_on_the_number_of_threads(folder, opened, monkeypatch):
    where = folder({"a": 300, "b": 300})
    first = opened(where)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    second = opened(where)
    assert torch.equal(first.train.images, second.train.images)
    assert first.fingerprint == second.fingerprint
