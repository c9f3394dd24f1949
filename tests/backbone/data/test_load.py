import hashlib
from pathlib import Path

import pytest
import torch

from engram.backbone.data import load as module
from engram.backbone.data.load import load, load_for_scoring, open_source
from engram.backbone.data.sets import MemorySplit, Source, Used
from engram.backbone.data.streaming import StreamedSplit
from engram.backbone.errors import UserError

NOWHERE = Path("nowhere")


def hashes(split):
    [(images, labels, _)] = split.batches(torch.arange(len(split)), len(split), "cpu")
    pairs = zip(images, labels, strict=True)
    return {hashlib.sha256(image.numpy().tobytes()).hexdigest(): int(label) for image, label in pairs}


def test_digits():
    data = load("digits", {}, root=NOWHERE)
    assert (len(data.train), len(data.validation), len(data.test)) == (1294, 144, 359)
    assert (data.in_shape, data.classes, data.name) == ((1, 8, 8), tuple("0123456789"), "digits")
    assert int(data.train.images.max()) == 255
    for split in (data.train, data.validation, data.test):
        counts = split.labels.bincount(minlength=10)
        assert int(counts.max() - counts.min()) <= 12


def test_digits_are_scikit_learns_and_its_own_reader_agrees(monkeypatch):
    from engram.backbone.data import digits

    quick = digits._table()
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    slow = digits._table()
    assert (quick[0] == slow[0]).all()
    assert (quick[1] == slow[1]).all()


@pytest.mark.parametrize("name", ["digits", "folder"])
def test_no_image_is_in_two_sets(name, folder):
    data = load(name if name == "digits" else f"folder:{folder({'a': 60, 'b': 40})}", {}, root=NOWHERE, validation=0.2)
    held = [hashes(split) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, held)) == len(data.train) + len(data.validation) + len(data.test)
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert not held[one].keys() & held[two].keys()


def test_same_sets_whatever_the_seed(folder):
    name = f"folder:{folder({'a': 60, 'b': 40})}"
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        data = load(name, {}, root=NOWHERE)
        found.append([hashes(split) for split in (data.train, data.validation, data.test)] + [data.fingerprint])
    assert found[0] == found[1]


def test_statistics_are_of_train_alone(folder):
    data = load(f"folder:{folder({'a': 40, 'b': 40}, (8, 8, 3))}", {}, root=NOWHERE)
    pixels = data.train.images.double() / 255
    torch.testing.assert_close(data.mean, pixels.mean((0, 2, 3)).float())
    torch.testing.assert_close(data.std, pixels.std((0, 2, 3), correction=0).float())
    assert data.mean.dtype == data.std.dtype == torch.float32


def test_a_constant_channel_can_be_divided_by(monkeypatch):
    images = torch.zeros(20, 2, 3, 3, dtype=torch.uint8)
    images[:, 1] = 77
    split = MemorySplit(images, torch.arange(20) % 2)
    monkeypatch.setattr(module, "open_source", lambda *_, **__: Source({"train": split}, ("a", "b"), ""))
    data = load("digits", {}, root=NOWHERE)
    assert data.std.tolist() == pytest.approx([1 / 255] * 2)
    assert data.mean.tolist() == pytest.approx([0, 77 / 255])


def test_event_frames_and_their_statistics(monkeypatch):
    images = torch.randint(0, 9, (40, 6, 2, 3, 3), dtype=torch.uint8)
    split = MemorySplit(images, torch.arange(40) % 2)
    monkeypatch.setattr(module, "open_source", lambda *_, **__: Source({"train": split}, ("a", "b"), ""))
    data = load("digits", {}, root=NOWHERE)
    counts = data.train.images.double() / 255
    assert (data.in_shape, data.frames, data.train.frames) == ((2, 3, 3), 6, 6)
    torch.testing.assert_close(data.mean, counts.mean((0, 1, 3, 4)).float())
    torch.testing.assert_close(data.std, counts.std((0, 1, 3, 4), correction=0).float())
    assert load_for_scoring("digits", {}, root=NOWHERE)[0].frames == 6


def test_validation_none_keeps_every_train_image(folder):
    data = load(f"folder:{folder({'a': 10, 'b': 10})}", {}, root=NOWHERE, validation=0)
    assert data.validation is None
    assert (len(data.train), len(data.test)) == (16, 4)


def test_the_test_set_does_not_depend_on_the_validation_share(folder):
    name = f"folder:{folder({'a': 30, 'b': 30})}"
    tests = [hashes(load(name, {}, root=NOWHERE, validation=share).test) for share in (0, 0.1, 0.5)]
    assert tests[0] == tests[1] == tests[2]


def test_a_share_of_the_training_images_is_of_all_classes_and_among_any_larger_share():
    whole = load("digits", {}, root=NOWHERE)
    places = [
        load("digits", {}, root=NOWHERE, used=Used(share, seed)).train.columns["original_index"].tolist()
        for share, seed in ((0.01, 0), (0.05, 0), (0.2, 0), (1.0, 0), (0.2, 1))
    ]
    few, more, many, every, others = map(set, places)
    assert few < more < many < every == set(whole.train.columns["original_index"].tolist())
    assert [len(each) for each in (few, more, many)] == [round(len(every) * share) for share in (0.01, 0.05, 0.2)]
    assert others != many
    assert len(others & many) < 0.3 * len(many)  # a fifth by chance
    used = load("digits", {}, root=NOWHERE, used=Used(0.2, 1))
    for share in (used.train.labels.bincount() / whole.train.labels.bincount()).tolist():
        assert share == pytest.approx(0.2, abs=0.01)
    assert torch.equal(used.test.images, whole.test.images)
    assert torch.equal(used.validation.images, whole.validation.images)
    assert not torch.equal(used.mean, whole.mean)  # of the images that are used
    assert set(load("digits", {}, root=NOWHERE, used=Used(1e-4)).train.labels.tolist()) == set(range(10))
    assert load_for_scoring("digits", {}, root=NOWHERE, split="train", used=Used(0.2, 1))[0].columns[
        "original_index"
    ].tolist() == sorted(others)


def test_over_the_budget_is_streamed_with_the_same_result(folder, monkeypatch):
    name = f"folder:{folder({'a': 30, 'b': 30}, (8, 8, 3))}"
    held = load(name, {}, root=NOWHERE)
    monkeypatch.setattr(module, "BUDGET_BYTES", 100)
    streamed = load(name, {}, root=NOWHERE)
    assert isinstance(streamed.train, StreamedSplit)
    assert torch.equal(held.mean, streamed.mean)
    assert torch.equal(held.std, streamed.std)
    assert held.fingerprint == streamed.fingerprint
    for part in ("train", "validation", "test"):
        assert hashes(getattr(held, part)) == hashes(getattr(streamed, part))
    whole, _, _ = load_for_scoring(name, {}, root=NOWHERE, split="all")
    assert len(whole) == 60


def test_scoring_a_source_with_a_test_set():
    data = load("digits", {}, root=NOWHERE)
    sizes = {}
    for split in ("test", "validation", "train", "all"):
        chosen, classes, digest = load_for_scoring("digits", {}, root=NOWHERE, split=split)
        sizes[split] = len(chosen)
        assert (classes, digest) == (data.classes, data.fingerprint)
    assert sizes == {"test": 359, "validation": 144, "train": 1294, "all": 1797}


def test_scoring_a_source_of_one_split(table):
    name = f"parquet:{table()}"
    for split in ("test", "all"):
        chosen, classes, _ = load_for_scoring(name, {}, root=NOWHERE, split=split)
        assert (len(chosen), classes) == (20, ("cat", "dog"))
    data = load(name, {}, root=NOWHERE)
    for split in ("train", "validation", "test"):
        chosen, _, _ = load_for_scoring(name, {}, root=NOWHERE, split=split, trained_on=[data.fingerprint])
        assert hashes(chosen) == hashes(getattr(data, split))
    with pytest.raises(UserError, match=r"the validation split of .* at least one image; got none"):
        load_for_scoring(name, {}, root=NOWHERE, split="validation", validation=0)


def test_scoring_needs_no_complete_set_of_classes(table):
    chosen, classes, _ = load_for_scoring(f"parquet:{table(labels=(1, 1))}", {}, root=NOWHERE)
    assert (chosen.labels.tolist(), classes) == ([1, 1], ("cat", "dog"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ({"labels": (1,) * 20}, "every class of 'parquet:.*in the train set; got no image of 'cat'"),
        ({"labels": (0,) * 20, "names": ("cat",)}, "at least two classes; got cat alone"),
        ({"labels": (0, 1)}, "large enough to hold out a fifth; got 2 images"),
        ({"labels": (0, 1) * 2}, "--validation must be enough for one image; got 0.1 of 3 images"),
    ],
)
def test_sets_that_cannot_be_trained_on(table, make, message):
    with pytest.raises(UserError, match=message):
        load(f"parquet:{table(**make)}", {}, root=NOWHERE)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_validation_share_out_of_range(share):
    with pytest.raises(UserError, match="--validation must be at least 0 and less than 1; got"):
        load("digits", {}, root=NOWHERE, validation=share)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digit", {}, "got 'digit'. Did you mean digits?"),
        ("folder", {}, "must be given with a path"),
        ("digits:x", {}, "must be given without a path"),
        ("digits", {"size": 8}, "--dataset.size must be left out for dataset 'digits'"),
        ("folder:x", {"sise": 8}, "got --dataset.sise. Did you mean --dataset.size"),
        ("folder:x", {"size": 0}, "--dataset.size must be at least 1 and at most 4096; got 0. See"),
        ("folder:x", {"channels": 2}, "--dataset.channels must be one of 1, 3; got 2"),
    ],
)
def test_bad_names_and_options(name, options, message):
    with pytest.raises(UserError, match=message):
        open_source(name, options, root=NOWHERE, download=False)


def test_options_reach_the_source(folder):
    name = f"folder:{folder({'a': 10, 'b': 10}, (8, 8, 3))}"
    assert load(name, {"size": 4, "channels": 1}, root=NOWHERE).in_shape == (1, 4, 4)
