"""Named parts of a source: its own validation part, and parts with classes of their own."""

import pytest
import torch

from engram.backbone.data.load import load, load_disjoint, load_for_scoring
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry


def look(name, options, root, training=True):
    return Registry.discover().problems(name, options, root=root, download=False, training=training)


@pytest.fixture(params=["folder", "parquet"])
def apart(request, folder, table):
    """A set whose parts have classes of their own: six, two and four."""
    counts = {"train": "abcdef", "val": "gh", "test": "ijkl"}
    if request.param == "folder":
        return f"folder:{folder({f'{part}/{name}': 3 for part, names in counts.items() for name in names})}"
    labels = 0
    for seed, (part, names) in enumerate(counts.items()):
        held = [label for label in range(labels, labels + len(names)) for _ in range(3)]
        where = table(f"{part}-00000-of-00001.parquet", labels=held, names="abcdefghijkl", seed=seed).parent
        labels += len(names)
    return f"parquet:{where}"


@pytest.fixture(params=["folder", "parquet"])
def whole(request, folder, table):
    """A set of two classes with three parts."""
    if request.param == "folder":
        counts = {f"{part}/{name}": count for part, count in (("train", 10), ("val", 3), ("test", 4)) for name in "ab"}
        return f"folder:{folder(counts)}"
    for seed, (part, count) in enumerate((("train", 10), ("val", 3), ("test", 4))):
        where = table(f"{part}-00000-of-00001.parquet", labels=(0, 1) * count, seed=seed).parent
    return f"parquet:{where}"


def test_a_set_s_own_validation_part_is_chosen_on_when_asked_for(whole, tmp_path, caplog):
    usual = load(whole, {}, root=tmp_path, validation=0.2)
    assert [len(split) for split in (usual.train, usual.validation, usual.test)] == [16, 4, 8]
    own = load(whole, {"parts": "own"}, root=tmp_path, validation=0.2)
    assert [len(split) for split in (own.train, own.validation, own.test)] == [20, 6, 8]
    assert torch.equal(own.test.images, usual.test.images)
    assert own.fingerprint != usual.fingerprint
    assert load(whole, {"parts": "own"}, root=tmp_path, validation=0).validation is None
    scored, _, _ = load_for_scoring(whole, {"parts": "own"}, root=tmp_path, split="validation")
    assert torch.equal(scored.images, own.validation.images)
    assert len(load_for_scoring(whole, {"parts": "own"}, root=tmp_path, split="all")[0]) == 34
    assert look(whole, {"parts": "own"}, tmp_path) == []


def test_a_validation_part_that_is_not_there(folder, tmp_path):
    name = f"folder:{folder({f'{part}/{k}': 3 for part in ('train', 'test') for k in 'ab'})}"
    with pytest.raises(UserError, match=r"--dataset\.parts own must be for a set with a validation part; got none in"):
        load(name, {"parts": "own"}, root=tmp_path)
    assert len(look(name, {"parts": "own"}, tmp_path)) == 1


def test_parts_with_classes_of_their_own_are_for_episodes(apart, tmp_path):
    data = load_disjoint(apart, {"parts": "disjoint"}, root=tmp_path)
    found = [{data.classes[k] for k in split.labels.tolist()} for split in (data.train, data.validation, data.test)]
    assert found == [set("abcdef"), set("gh"), set("ijkl")]
    whole = load_disjoint(apart, {"parts": "disjoint"}, root=tmp_path, validation=0)
    assert whole.validation is None and {data.classes[k] for k in whole.train.labels.tolist()} == set("abcdefgh")
    assert len(whole.train) == len(data.train) + len(data.validation) and not whole.mean.equal(data.mean)
    tests, classes, _ = load_for_scoring(apart, {"parts": "disjoint"}, root=tmp_path)
    assert {classes[k] for k in tests.labels.tolist()} == set("ijkl")
    assert look(apart, {"parts": "disjoint"}, tmp_path, training=False) == []
    said = "must be of the same classes in every part, to train a classifier on; got one whose parts have classes of"
    with pytest.raises(UserError, match=said):
        load(apart, {"parts": "disjoint"}, root=tmp_path)
    (found,) = look(apart, {"parts": "disjoint"}, tmp_path)
    assert said in found


def test_without_the_option_such_a_set_is_refused_as_before(apart, tmp_path):
    with pytest.raises(UserError, match="must be in the train set"):
        load(apart, {}, root=tmp_path)


def test_a_class_in_two_parts_is_not_disjoint(whole, tmp_path):
    said = r"every class must be in one part alone; got '(a|cat)' in train and in validation"
    with pytest.raises(UserError, match=said):
        load_disjoint(whole, {"parts": "disjoint"}, root=tmp_path)
    assert "in one part alone" in look(whole, {"parts": "disjoint"}, tmp_path, training=False)[0]


def test_classes_of_any_set_are_dealt_out(tmp_path):
    data = load_disjoint("digits", {}, root=tmp_path)
    again = load_disjoint("digits", {}, root=tmp_path)
    sets = (data.train, data.validation, data.test)
    classes = [split.labels.unique().tolist() for split in sets]
    assert [len(each) for each in classes] == [6, 2, 2]
    assert sorted(label for each in classes for label in each) == list(range(10))
    assert sum(map(len, sets)) == 1797  # every image of a class goes with it
    for one, two in zip(sets, (again.train, again.validation, again.test), strict=True):
        assert one.images.equal(two.images) and one.labels.equal(two.labels)


def test_classes_of_a_flat_folder_are_dealt_out(folder, tmp_path):
    name = f"folder:{folder(dict.fromkeys('abcdefghij', 2))}"
    shared, disjoint = (load_disjoint(name, options, root=tmp_path) for options in ({}, {"parts": "disjoint"}))
    for data in (shared, disjoint):
        assert [len(split.labels.unique()) for split in (data.train, data.validation, data.test)] == [6, 2, 2]
    assert shared.test.labels.equal(disjoint.test.labels)


def test_too_few_classes_for_episodes(folder, tmp_path):
    with pytest.raises(UserError, match=r"the train part of .* must be of at least two classes of its own; got 0"):
        load_disjoint(f"folder:{folder(dict.fromkeys('abc', 2))}", {}, root=tmp_path)


def test_a_picture_in_two_disjoint_parts_is_said_or_dropped(folder, tmp_path):
    where = folder({f"{part}/{name}": 3 for part, names in (("train", "ab"), ("test", "cd")) for name in names})
    (where / "test" / "c" / "twice.png").write_bytes((where / "train" / "a" / "000.png").read_bytes())
    options = {"parts": "disjoint", "duplicates": "drop"}
    data = load_disjoint(f"folder:{where}", options, root=tmp_path, validation=0)
    assert len(data.train) == 5 and data.facts["train_images_in_test_dropped"] == 1
    assert "the test set" in look(f"folder:{where}", {**options, "duplicates": "refuse"}, tmp_path, training=False)[0]
