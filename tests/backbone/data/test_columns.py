"""What is known of images beside their labels: it follows them everywhere, and decides what a set is."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch

from engram.backbone.data.columns import chosen, indexed, joined, numbered
from engram.backbone.data.folders import open_folder
from engram.backbone.data.load import load, open_source
from engram.backbone.data.options import FolderOptions, PartOptions
from engram.backbone.data.parquet import open_parquet
from engram.backbone.data.sets import MemorySplit
from engram.backbone.data.views import Joined, View, seen
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry


@pytest.fixture
def split():
    """20 images; names, numbers and masks that say which image they are of."""
    images = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(20, 1, 4, 4)
    masks = torch.arange(20, dtype=torch.uint8)[:, None, None].expand(20, 4, 4)
    columns = {"writer": tuple(f"w{k}" for k in range(20)), "group": torch.arange(20) * 10, "foreground": masks}
    return MemorySplit(images.contiguous(), torch.arange(20) % 2, columns)


def told(split):
    """Which image every row is, by its pixels, and by each of its columns."""
    [(images, *_)] = split.batches(torch.arange(len(split)), len(split), "cpu")
    found = [images[:, 0, 0, 0].tolist()]
    if "writer" in split.columns:
        found.append([int(name[1:]) for name in split.columns["writer"]])
    found += [(split.columns["group"] // 10).tolist()] if "group" in split.columns else []
    found += [split.columns["foreground"][:, 0, 0].tolist()] if "foreground" in split.columns else []
    return found


def test_columns_follow_the_images_through_selections_joins_and_views(split):
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    table = torch.tensor([1, 0])
    first, second = split.select(order[:7]), split.select(order[7:])
    views = [View(first, table, None), seen(second, table)]
    splits = [first, second, first.and_also(second), views[0].select(torch.tensor([4, 0])), Joined(views)]
    for each in [*splits, Joined(views).select(torch.tensor([0, 3, 9])), views[0].and_also(views[1])]:
        rows, *columns = told(each)
        assert len(columns) == 3 and all(column == rows for column in columns)


def test_positions_of_a_batch_find_its_columns(split):
    part = split.select(torch.arange(19, -1, -1))
    view = View(part, torch.arange(2), None)
    order = torch.randperm(20)
    for each in (part, view, Joined([view.select(torch.arange(8)), part.select(torch.arange(8, 20))])):
        batches = list(each.batches(order, 6, "cpu"))
        assert torch.cat([positions for _, _, positions in batches]).equal(order)
        for images, _, positions in batches:
            found = chosen(each.columns, positions)
            assert found["group"].tolist() == [10 * int(image[0, 0, 0]) for image in images]
            assert found["writer"] == tuple(f"w{int(image[0, 0, 0])}" for image in images)


def test_masks_are_left_out_where_pixels_may_have_moved(split):
    upside_down = lambda images, places: images.flip(-2)  # noqa: E731
    for each in (seen(split, torch.arange(2), upside_down), View(split, torch.arange(2), upside_down)):
        assert set(each.columns) == {"writer", "group"}


def test_columns_that_not_all_have_are_left_out():
    one = {"a": ("x",), "b": torch.tensor([1]), "c": torch.tensor([1])}
    two = {"a": ("y", "z"), "b": torch.tensor([2]), "c": ("no number",)}
    assert joined([one, two]) == {"a": ("x", "y", "z"), "b": pytest.approx(torch.tensor([1, 2]))}
    with pytest.raises(ValueError, match="column writer has 2 values for 3 images"):
        MemorySplit(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3).long(), {"writer": ("a", "b")})


@pytest.mark.parametrize("column", [("b", "a", "b"), torch.tensor([7, -1, 7])])
def test_groups_are_numbered_in_order(column):
    groups, names = numbered(column)
    assert groups.tolist() == [1, 0, 1]
    assert names == (("a", "b") if isinstance(column, tuple) else ("-1", "7"))


@pytest.mark.parametrize("name", ["digits", "saccades:digits", "moving-shapes"])
def test_every_image_knows_where_it_stood(name, tmp_path):
    options = {"samples": 60} if name == "moving-shapes" else {}
    source, data = open_source(name, options, root=tmp_path, download=False), load(name, options, root=tmp_path)
    both = torch.cat([data.train.columns["original_index"], data.validation.columns["original_index"]])
    assert both.sort().values.equal(source.train.columns["original_index"])
    assert data.test.columns["original_index"].equal(source.test.columns["original_index"])


def test_tables_in_memory_and_streamed_tell_the_same(table, tmp_path):
    for file, count, seed in (("train-0.parquet", 12, 0), ("test-0.parquet", 6, 1)):
        extra = {
            "writer": pa.array([f"w{k % 3}" for k in range(count)]).dictionary_encode(),
            "age": pa.array(range(count), pa.int16()),
            "share": pa.array([k / 8 for k in range(count)]),
            "old": pa.array([k > 2 for k in range(count)]),
        }
        where = table(file, labels=[k % 2 for k in range(count)], extra=extra, seed=seed).parent
    options = PartOptions(columns="writer, age,share,old")
    held, streamed = (
        open_parquet(str(where), options, root=tmp_path, download=False, budget_bytes=size) for size in (2**30, 1)
    )
    assert held.fingerprint == streamed.fingerprint
    for part in ("train", "test"):
        one, two = held.parts[part].columns, pickle.loads(pickle.dumps(streamed.parts[part])).columns
        assert list(one) == list(two) == ["original_index", "writer", "age", "share", "old"]
        assert one["writer"] == two["writer"] and all(one[n].equal(two[n]) for n in one if n != "writer")
        count = 12 if part == "train" else 6
        assert one["writer"] == tuple(f"w{k % 3}" for k in range(count))
        assert one["age"].tolist() == one["original_index"].tolist() == list(range(count))
        assert one["share"].tolist() == [k / 8 for k in range(count)] and one["old"].sum() == count - 3
    rows = torch.tensor([3, 1])
    assert streamed.train.select(rows).and_also(streamed.test).columns["age"].tolist() == [3, 1, 0, 1, 2, 3, 4, 5]


def test_a_column_decides_what_a_table_is(table, tmp_path):
    def digest(groups, columns):
        where = table(labels=(0, 1) * 5, extra={"group": pa.array(groups), "other": pa.array(groups)})
        options = {"columns": columns} if columns else {}
        return open_source(f"parquet:{where}", options, root=tmp_path, download=False).fingerprint

    one, two = list(range(10)), list(range(10, 0, -1))
    plain = digest(one, "")
    assert plain == digest(two, "")  # nobody looks at it
    assert len({plain, digest(one, "group"), digest(two, "group"), digest(one, "other")}) == 4


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (
            "nothing",
            r"every name in --dataset.columns must be a column of .* \(img, label, text, hole\); got 'nothing'",
        ),
        ("img", r"column of --dataset.columns must be of numbers or texts; got struct<"),
        ("hole", r"a value of hole must be given; got none in .* row 1"),
    ],
)
def test_a_column_that_cannot_be_read(table, tmp_path, column, said):
    where = table(labels=(0, 1), extra={"text": pa.array(["a", "b"]), "hole": pa.array([1, None])})
    look = {"root": tmp_path, "download": False}
    (found,) = Registry.discover().problems(f"parquet:{where}", {"columns": column}, training=True, **look)
    assert found.startswith(("every name", "a column", "a value"))
    with pytest.raises(UserError, match=said):
        open_source(f"parquet:{where}", {"columns": column}, **look)


@pytest.fixture
def cells(folder):
    """Pictures called by what they show, and a table that tells of them."""
    where = folder({"train/good": 4, "train/bad": 3, "test/good": 2, "test/bad": 1})
    lines = {part: [] for part in ("train", "test")}
    for number, file in enumerate(sorted(where.rglob("*.png"))):
        new = file.with_name(f"{'mono' if number % 2 else 'poly'}-{number}.png")
        file.rename(new)
        part = new.relative_to(where).parts[0]
        lines[part].append(f"{new.relative_to(where / part).as_posix()},{number},s{number % 3}")
    for part, rows in lines.items():
        (where / part / "metadata.csv").write_text("\n".join(["file_name,serial,site", *reversed(rows)]) + "\n")
    return where


def test_what_names_and_files_tell_of_pictures(cells, tmp_path):
    options = FolderOptions(columns="serial,site,file_name", name_pattern=r"(?P<crystal>mono|poly)-")
    source = open_folder(str(cells), options, root=tmp_path, download=False, budget_bytes=2**30)
    for part, split in source.parts.items():
        columns, files = split.columns, split.columns["file_name"]
        serials = [int(file.rpartition("-")[2].removesuffix(".png")) for file in files]
        assert columns["serial"].tolist() == serials
        assert columns["site"] == tuple(f"s{serial % 3}" for serial in serials)
        assert columns["crystal"] == tuple("mono" if serial % 2 else "poly" for serial in serials)
        assert all(file.startswith(f"{part}/{source.classes[k]}/") for file, k in zip(files, split.labels, strict=True))


def test_subgroups_and_environments_of_a_folder(cells, tmp_path):
    options = {"group": "crystal", "environment": "site", "name_pattern": r"(?P<crystal>mono|poly)-"}
    plain = open_source(f"folder:{cells}", options, root=tmp_path, download=False)
    spoiled = open_source(f"corrupted:folder:{cells}", options, root=tmp_path, download=False)
    for source in (plain, spoiled):
        for split in source.parts.values():
            told, classes = split.columns, [source.classes[label] for label in split.labels]
            assert told["group"] == tuple(f"{one}, {two}" for one, two in zip(classes, told["crystal"], strict=True))
            assert told["environment"] == told["site"]
    less = open_source(f"folder:{cells}", {**options, "group": None}, root=tmp_path, download=False)
    assert len({plain.fingerprint, spoiled.fingerprint, less.fingerprint}) == 3


def test_subgroups_and_environments_of_a_table(table, tmp_path):
    count = 12
    extra = {
        "age": pa.array([k % 3 for k in range(count)], pa.int16()),
        "share": pa.array([k / 8 for k in range(count)]),
        "old": pa.array([k > 2 for k in range(count)]),
    }
    where, look = table(labels=[k % 2 for k in range(count)], extra=extra), {"root": tmp_path, "download": False}
    found = open_source(f"parquet:{where}", {"group": "old", "environment": "age"}, **look).train.columns
    assert found["group"][:4] == ("cat, False", "dog, False", "cat, False", "dog, True")
    assert torch.equal(found["environment"], torch.arange(count) % 3)
    told = open_source(f"parquet:{where}", {"environment": "old"}, **look).train.columns
    assert told["environment"] == ("False",) * 3 + ("True",) * 9
    for options, said in (
        (
            {"group": "share"},
            "column of --dataset.group must be of whole numbers or texts; got double in column share",
        ),
        ({"environment": "site"}, r"--dataset.environment must be a column of .*age, share, old\); got 'site'"),
    ):
        (wrong,) = Registry.discover().problems(f"parquet:{where}", options, training=True, **look)
        with pytest.raises(UserError, match=said) as error:
            open_source(f"parquet:{where}", options, **look)
        assert wrong == str(error.value)


def test_what_is_asked_for_decides_what_a_folder_is(cells, tmp_path):
    def digest(**options):
        return open_source(f"folder:{cells}", options, root=tmp_path, download=False).fingerprint

    pattern = r"(?P<crystal>mono|poly)-"
    before = [digest(), digest(columns="site"), digest(columns="serial"), digest(name_pattern=pattern)]
    assert len(set(before)) == 4
    table = cells / "test" / "metadata.csv"
    table.write_text(table.read_text().replace(",s1", ",s7"))
    after = [digest(), digest(columns="site"), digest(columns="serial"), digest(name_pattern=pattern)]
    assert [one == two for one, two in zip(before, after, strict=True)] == [True, False, True, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": "age"}, r"columns of metadata.csv in .* \(file_name, serial, site\); got 'age'"),
        ({"name_pattern": "(?P<crystal>mono)-"}, r"begun as --dataset.name-pattern .* says; got .*poly-.* and \d more"),
        ({"name_pattern": "(?P<crystal>mono"}, "name-pattern must be a regular expression"),
        ({"name_pattern": "mono|poly"}, "one with named groups"),
        ({"columns": "site", "name_pattern": "(?P<site>....)"}, "column 'site' must be told once"),
        (
            {"group": "age", "name_pattern": "(?P<crystal>mono|poly)-"},
            r"--dataset.group must be a group of --dataset.name-pattern \(crystal\) or in metadata.csv in .* "
            r"\(file_name, serial, site\); got 'age'\. Name one of these, or add it\.",
        ),
        ({"environment": "crystal", "name_pattern": "(?P<crystal>mono)-"}, "begun as --dataset.name-pattern"),
    ],
)
def test_what_pictures_do_not_tell(cells, tmp_path, options, said):
    look = {"root": tmp_path, "download": False}
    with pytest.raises(UserError, match=said) as error:
        open_source(f"folder:{cells}", options, **look)
    assert Registry.discover().problems(f"folder:{cells}", options, training=True, **look) == [str(error.value)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("file_name", "file"), "must be the place of its picture in the column file_name"),
        (
            lambda text: "\n".join(text.splitlines()[:-1]),
            "the value of 'site' must be in metadata.csv for every picture",
        ),
        (lambda text: text.replace(",s0", ","), "the value of 'site' must be in metadata.csv for every picture"),
        (lambda text: text.encode("utf-16"), "a CSV file in UTF-8"),
    ],
)
def test_tables_beside_pictures_that_are_damaged(cells, tmp_path, change, said):
    file = cells / "train" / "metadata.csv"
    new = change(file.read_text())
    file.write_bytes(new if isinstance(new, bytes) else new.encode())
    with pytest.raises(UserError, match=said):
        open_source(f"folder:{cells}", {"columns": "site"}, root=tmp_path, download=False)


def test_a_published_set_s_images_keep_their_numbers(idx):
    data = load("mnist", {}, root=idx(), validation=0.25)
    places = torch.cat([data.train.columns["original_index"], data.validation.columns["original_index"]])
    assert sorted(places.tolist()) == list(range(40))
    assert data.test.columns["original_index"].tolist() == list(range(20))
    [(images, _, positions)] = data.validation.batches(torch.arange(10), 10, "cpu")
    whole = open_source("mnist", {}, root=idx(), download=False).train
    assert images.equal(whole.images[chosen(data.validation.columns, positions)["original_index"]])


def test_places_of_several_parts():
    assert indexed(2, 0, 3)["original_index"].tolist() == [0, 1, 0, 1, 2]
    assert np.array_equal(indexed(0)["original_index"], [])
