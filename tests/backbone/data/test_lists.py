"""Few-shot sets as they are published: parts in folders of their own, in tables of pictures, in lists of classes."""

import pytest

from engram.backbone.data.load import load, load_disjoint, open_source
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry

PARTS = {"train": ["n01", "n02", "n03"], "val": ["n04", "n05"], "test": ["n06", "n07"]}
ALL = [name for names in PARTS.values() for name in names]
APART = {"parts": "disjoint"}


def look(where, tmp_path):
    return Registry.discover().problems(f"folder:{where}", APART, root=tmp_path, download=False, training=False)


@pytest.fixture
def tables(folder):
    """mini-ImageNet's: all pictures in one folder, a table for each part."""
    where = folder({"images": 4 * len(ALL)}, shape=(12, 10))
    names = sorted(file.name for file in (where / "images").iterdir())
    for part, classes in PARTS.items():
        rows = [f"{name},{label}" for label in classes for name in names[ALL.index(label) :: len(ALL)]]
        (where / f"{part}.csv").write_text("\n".join(["filename,label", *rows]) + "\n")
    return where


@pytest.fixture
def names(folder):
    """CIFAR-FS's: a folder for each class, lists of classes."""
    where = folder({f"data/{label}": 4 for label in [*ALL, "unused"]}, name="listed")
    (where / "splits" / "bertinetto").mkdir(parents=True)
    for part, classes in PARTS.items():
        (where / "splits" / "bertinetto" / f"{part}.txt").write_text("\n".join(classes) + "\n")
    return where


@pytest.fixture(params=["tables", "names", "plain", "meta-", "meta_"])
def published(request, folder):
    if request.param in ("tables", "names"):
        return request.getfixturevalue(request.param)
    before = "" if request.param == "plain" else request.param
    return folder({f"{before}{part}/{label}": 4 for part, classes in PARTS.items() for label in classes})


def test_every_layout_is_the_same_set(published, tmp_path):
    source = open_source(f"folder:{published}", APART, root=tmp_path, download=False)
    found = {part: [source.classes[k] for k in split.labels.unique()] for part, split in source.parts.items()}
    assert found == {"train": PARTS["train"], "validation": PARTS["val"], "test": PARTS["test"]}
    assert all((split.labels.bincount() % 4 == 0).all() for split in source.parts.values())
    data = load_disjoint(f"folder:{published}", APART, root=tmp_path)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 8, 8]
    assert look(published, tmp_path) == []


def test_pictures_go_to_the_classes_that_a_table_says(tables, tmp_path):
    source = open_source(f"folder:{tables}", {**APART, "columns": "file_name"}, root=tmp_path, download=False)
    said = dict(row.split(",") for part in PARTS for row in (tables / f"{part}.csv").read_text().splitlines()[1:])
    for split in source.parts.values():
        for place, label in zip(split.columns["file_name"], split.labels.tolist(), strict=True):
            assert said[place.removeprefix("images/")] == source.classes[label]


def test_lists_are_for_classes_of_their_own_alone(names, tmp_path):
    data = load(f"folder:{names}/data", {}, root=tmp_path)
    assert data.classes == (*ALL, "unused")


def test_lists_are_among_the_files_that_tell_data_apart(tables, names, tmp_path):
    for where, file in ((tables, "val.csv"), (names, "splits/bertinetto/val.txt")):
        assert file in Registry.discover().files(f"folder:{where}", root=tmp_path).files


HEAD = "filename,label\n000.png,n01\n"
ROW = "a table with filename and label in every row; got none in row"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("train.csv", f"{HEAD}zzz.png,n01\nyyy.png,n02\n", "got nothing called zzz.png and 1 more"),
        ("train.csv", f"{HEAD}001.png\n", f"{ROW} 3"),
        ("train.csv", "name,class\n000.png,n01\n", f"{ROW} 2"),
        ("train.csv", "", f"{ROW} 2"),
        ("train.csv", f"{HEAD}../../x.png,n01\n", "got nothing called ../../x.png"),
        ("test.csv", f"{HEAD}001.png,n06\n", "every class must be in one part alone; got 'n01' in train"),
        ("training.csv", HEAD, "the list of the train part must be one file; got"),
    ],
)
def test_tables_that_are_wrong(tables, tmp_path, file, text, said):
    (tables / file).write_text(text)
    assert any(said in each for each in look(tables, tmp_path))
    with pytest.raises(UserError):
        open_source(f"folder:{tables}", APART, root=tmp_path, download=False)


def test_lists_that_are_wrong_are_all_told(names, tmp_path):
    lists = names / "splits" / "bertinetto"
    (lists / "train.txt").write_text("n01\nn08\n")
    (lists / "val.txt").write_text("")
    found = look(names, tmp_path)
    assert (
        len(found) == 2 and "nothing called n08" in found[0] and "must be one of classes; got an empty one" in found[1]
    )
    (lists / "train.txt").unlink()
    assert "a folder with a train split in it" in look(names, tmp_path)[0]
    (lists / "train.txt").write_bytes(b"\xff\xfe")
    assert "must be in UTF-8" in look(names, tmp_path)[0]
