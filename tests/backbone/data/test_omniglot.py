"""Omniglot's splits and what is known of its drawings; the real set in the last tests."""

import numpy as np
import pytest
import torch

from engram.backbone.data.load import load, load_disjoint, open_source
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry

ALPHABETS = {"images_background": ["Korean", "Hebrew"], "images_evaluation": ["Tibetan", "Gurmukhi"]}
CHARACTERS = (41, 42)


def opened(root, **options):
    return open_source("omniglot", options, root=root, download=False)


@pytest.fixture
def drawings(folder, tmp_path):
    """Four alphabets of two characters, drawn by 20 people each, in files called as the published ones."""
    counts = {
        f"omniglot-py/{p}/{a}/character{c}": 20 for p, held in ALPHABETS.items() for a in held for c in CHARACTERS
    }
    root = folder(counts, name="root")
    for file in sorted(root.rglob("*.png")):
        file.rename(file.with_name(f"0001_{int(file.stem) + 1:02d}.png"))
    return root


@pytest.mark.parametrize("place", ["omniglot-py", "omniglot-small", "."])
def test_one_set_of_all_characters_by_default(folder, tmp_path, place):
    for number, part in enumerate(("images_background_small1", "images_evaluation")):
        folder({f"{place}/{part}/Alphabet{number}/character0{index}": 20 for index in (1, 2)}, name="root", seed=number)
    source = opened(tmp_path / "root")
    assert source.classes == tuple(f"Alphabet{a}/character0{c}" for a in (0, 1) for c in (1, 2))
    assert source.train.labels.bincount().tolist() == [16] * 4
    assert source.test.labels.bincount().tolist() == [4] * 4
    assert "writer" not in source.train.columns  # the files are not called as the published ones
    assert opened(tmp_path / "root", size=4).train.in_shape == (1, 4, 4)


def test_drawings_in_two_sets_count_once(folder, tmp_path):
    for part in ("small1", "small2"):
        where = f"images_background_{part}"
        folder({f"{where}/Greek/character01": 20, f"{where}/{part}/a": 5}, name="root")
    source = opened(tmp_path / "root")
    assert (source.train.labels.bincount() + source.test.labels.bincount()).tolist() == [20, 5, 5]


def test_alphabet_character_and_writer_of_every_drawing(drawings):
    source = opened(drawings)
    for part in (source.train, source.test):
        names = [source.classes[label] for label in part.labels.tolist()]
        columns = part.columns
        assert [f"{a}/{c}" for a, c in zip(columns["alphabet"], columns["character"], strict=True)] == names
    both = source.train.and_also(source.test)
    for label in range(len(source.classes)):
        assert both.columns["writer"][both.labels == label].sort().values.tolist() == list(range(1, 21))


def test_writers_that_the_order_of_files_does_not_tell_are_part_of_the_fingerprint(drawings):
    before = opened(drawings)
    (file,) = drawings.rglob("Korean/character41/0001_20.png")
    file.rename(file.with_name("0001_21.png"))
    after = opened(drawings)
    assert after.fingerprint != before.fingerprint
    assert after.train.and_also(after.test).columns["writer"].max() == 21


def test_lakes_split_may_have_alphabets_to_choose_by(drawings):
    source = opened(drawings, split="lake-chosen")
    alphabets = {part: set(split.columns["alphabet"]) for part, split in source.parts.items()}
    assert alphabets == {"train": {"Korean"}, "validation": {"Hebrew"}, "test": {"Tibetan", "Gurmukhi"}}


def test_lakes_split_has_characters_of_its_own_in_every_part(drawings):
    source = opened(drawings, split="lake")
    assert source.disjoint
    assert set(source.train.columns["alphabet"]) == {"Korean", "Hebrew"}
    assert set(source.test.columns["alphabet"]) == {"Tibetan", "Gurmukhi"}
    assert not set(source.train.labels.tolist()) & set(source.test.labels.tolist())
    data = load_disjoint("omniglot", {"split": "lake"}, root=drawings, validation=0.5)
    classes = [split.labels.unique().tolist() for split in (data.train, data.validation, data.test)]
    assert [len(each) for each in classes] == [2, 2, 4]
    assert sorted(label for each in classes for label in each) == list(range(8))


def test_vinyals_split_has_every_quarter_turn_as_a_class(drawings):
    upright, source = opened(drawings, split="lake"), opened(drawings, split="vinyals")
    alphabets = {part: set(split.columns["alphabet"]) for part, split in source.parts.items()}
    assert alphabets == {"train": {"Korean", "Gurmukhi"}, "validation": {"Hebrew"}, "test": {"Tibetan", "Gurmukhi"}}
    train = source.train
    [(images, labels, _)] = train.batches(torch.arange(len(train)), len(train), "cpu")
    assert labels.equal(train.labels) and len(train) == 4 * 60
    for row in (0, 25, 70, 130, 239):
        name, _, turn = source.classes[labels[row]].rpartition("/rot")
        writer, character = int(train.columns["writer"][row]), upright.classes.index(name)
        for part in upright.parts.values():
            at = ((part.labels == character) & (part.columns["writer"] == writer)).nonzero().flatten()
            if len(at):
                assert np.array_equal(images[row], np.rot90(part.images[at[0]], int(turn) // 90, (1, 2)))


def test_turned_images_behave_as_a_split(drawings):
    source = opened(drawings, split="vinyals")
    chosen = torch.randperm(len(source.train))[:50]
    part = source.train.select(chosen)
    [(every, *_)] = source.train.batches(torch.arange(len(source.train)), 1000, "cpu")
    [(images, labels, _)] = part.batches(torch.arange(50), 50, "cpu")
    assert images.equal(every[chosen]) and labels.equal(source.train.labels[chosen])
    sums, squares, count = part.moments()
    assert sums.item() == int(images.long().sum()) and squares.item() == int((images.long() ** 2).sum())
    assert count == images.numel()
    joined = part.and_also(source.test)
    [(both, known, _)] = joined.batches(torch.arange(len(joined)), 1000, "cpu")
    [(tests, *_)] = source.test.batches(torch.arange(len(source.test)), 1000, "cpu")
    assert both.equal(torch.cat((images, tests)))
    assert known.equal(torch.cat((labels, source.test.labels))) and known.equal(joined.labels)


@pytest.mark.parametrize(
    ("split", "background", "found"),
    [
        ("lake", "small1", {"Korean", "Greek"}), ("lake", "small2", {"Greek", "Tagalog"}),
        ("lake", "small", {"Korean", "Greek", "Tagalog"}), ("lake", "full", {"Korean", "Greek", "Tagalog", "Hebrew"}),
        ("vinyals", "small", {"Korean", "Greek", "Tagalog"}),
        ("vinyals", "full", {"Korean", "Greek", "Tagalog"}),  # Hebrew is for choosing, Gurmukhi is not background
        ("vinyals", None, {"Korean", "Greek", "Tagalog", "Gurmukhi"}),
    ],
)  # fmt: skip
def test_the_minimal_sets_are_trained_on_and_what_is_tested_stays(drawings, folder, split, background, found):
    folder({f"omniglot-py/images_background/{name}/character41": 1 for name in ("Greek", "Tagalog")}, name="root")
    whole, part = opened(drawings, split=split), opened(drawings, split=split, background=background)
    assert set(part.train.columns["alphabet"]) == found
    for name in whole.parts.keys() - {"train"}:
        assert set(part.parts[name].columns["alphabet"]) == set(whole.parts[name].columns["alphabet"])


def test_a_background_is_for_splits_by_alphabets(drawings):
    said = r"--dataset\.background must be for a split with characters of its own in every part; got small"
    with pytest.raises(UserError, match=said):
        opened(drawings, background="small")
    look = {"root": drawings, "download": False, "training": True}
    assert len(Registry.discover().problems("omniglot", {"background": "small"}, **look)) == 1
    (missing,) = Registry.discover().problems(
        "omniglot", {"background": "small2", "split": "lake"}, **{**look, "training": False}
    )
    assert "none to train on" in missing


@pytest.mark.data
def test_the_minimal_sets_are_those_published(data_root):
    from engram.backbone.data.places import MINIMAL

    small = data_root("omniglot-small/images_background_small2") / "omniglot-small"
    for name, number in (("small1", 1), ("small2", 2)):
        here = {folder.name for folder in (small / f"images_background_small{number}").iterdir()}
        assert set(MINIMAL[name]) == here and here <= set(MINIMAL["small"])


@pytest.mark.parametrize("split", ["lake", "vinyals"])
def test_a_classifier_is_not_trained_on_characters_it_is_not_tested_on(drawings, split):
    said = "must be of the same classes in every part, to train a classifier on; got one whose parts have classes of"
    look = {"root": drawings, "download": False}
    (found,) = Registry.discover().problems("omniglot", {"split": split}, training=True, **look)
    assert said in found
    assert Registry.discover().problems("omniglot", {"split": split}, training=False, **look) == []
    with pytest.raises(UserError, match=said):
        load("omniglot", {"split": split}, root=drawings)


def test_a_part_without_characters_is_an_error(folder):
    root = folder({"images_background/Greek/character01": 2, "images_background/Latin/character01": 2})
    look = {"root": root, "download": False, "training": False}
    (found,) = Registry.discover().problems("omniglot", {"split": "lake"}, **look)
    assert "--dataset.split lake must be for the characters of images_background and images_evaluation" in found
    with pytest.raises(UserError, match="none to test on below"):
        opened(root, split="lake")


@pytest.mark.slow  # 32,460 files
@pytest.mark.data
def test_the_real_set(data_root):
    root = data_root("omniglot*/images_background*")
    data = load("omniglot", {"size": 28}, root=root)
    assert data.in_shape == (1, 28, 28)
    assert (data.test.labels.bincount() == 4).all()
    assert len(data.train) + len(data.validation) + len(data.test) == 20 * len(data.classes)


@pytest.mark.data
def test_vinyals_lists(data_root):
    """Which part every character and turn is in, against the published lists; no picture is read."""
    from engram.backbone.data.places import omniglot_parts

    root = data_root("omniglot-splits/train.txt")
    parts = omniglot_parts(data_root("omniglot*/images_evaluation"), "vinyals", None)
    for part, file in (("train", "train"), ("validation", "val"), ("test", "test")):
        listed = (root / "omniglot-splits" / f"{file}.txt").read_text().split()
        assert {f"{name}/rot{turn:03d}" for name in parts[part] for turn in (0, 90, 180, 270)} == set(listed)
