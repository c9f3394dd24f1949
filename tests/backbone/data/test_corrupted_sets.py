"""Sets of corrupted pictures: in memory, streamed, selected, and as the data set ``corrupted:NAME``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engram.backbone.data import load as loading
from engram.backbone.data.corruptions import split as module
from engram.backbone.data.corruptions.applying import corrupt
from engram.backbone.data.corruptions.split import corrupted
from engram.backbone.data.load import load, load_disjoint, load_for_scoring, open_source
from engram.backbone.data.sets import MemorySplit
from engram.backbone.data.streaming import StreamedSplit
from engram.backbone.data.views import seen
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry

NOWHERE = Path("nowhere")
NOISE = {"kind": "gaussian-noise", "severity": 5}


def images_of(split, batch_size=50):
    return torch.cat([x for x, _, _ in split.batches(torch.arange(len(split)), batch_size, "cpu")])


@pytest.fixture(scope="module")
def digits():
    return load("digits", {}, root=NOWHERE)


def test_every_picture_is_that_of_its_place_in_the_source(digits):
    data = load("corrupted:digits", NOISE, root=NOWHERE)
    assert (data.name, data.classes, data.in_shape) == ("corrupted:digits", digits.classes, digits.in_shape)
    for one, two in ((digits.train, data.train), (digits.validation, data.validation), (digits.test, data.test)):
        assert torch.equal(one.labels, two.labels)
        places = one.columns["original_index"]
        assert torch.equal(two.columns["original_index"], places)
        assert torch.equal(images_of(two), corrupt(one.images, places, "gaussian-noise", 5))
        assert torch.equal(images_of(corrupted(one, "gaussian-noise", 5)), images_of(two))
    assert images_of(data.train).double().mean().item() / 255 == pytest.approx(data.mean.item(), abs=1e-6)
    other = load("corrupted:digits", {**NOISE, "corruption_seed": 1}, root=NOWHERE)
    assert not torch.equal(images_of(other.test), images_of(data.test))


def test_pictures_are_corrupted_once_and_only_when_they_are_needed(digits, monkeypatch):
    made = []
    monkeypatch.setattr(module, "corrupt", lambda images, *more: made.append(len(images)) or corrupt(images, *more))
    few = corrupted(digits.test, "contrast", 2).select(torch.tensor([5, 3, 8]))
    assert not made
    order = torch.tensor([2, 0, 0])
    for _ in range(2):
        ((_, labels, positions),) = few.batches(order, 9, "cpu")
        assert torch.equal(labels, digits.test.labels[[8, 5, 5]]) and torch.equal(positions, order)
    assert made == [3]
    again = few.select(torch.tensor([1]))
    assert torch.equal(images_of(again), images_of(few)[1:2])
    assert made == [3]
    assert torch.equal(images_of(again.and_also(few)), torch.cat((images_of(again), images_of(few))))
    mirrored = seen(few, torch.arange(10), lambda x, places: x.flip(-1))
    assert torch.equal(images_of(mirrored), images_of(few).flip(-1))


def test_streamed_pictures_and_the_options_of_the_set_they_are_of(folder, monkeypatch):
    name = f"corrupted:folder:{folder({'a': 30, 'b': 20}, (8, 8, 3))}"
    options = {"kind": "blobs", "size": 12, "name_pattern": "(?P<number>[0-9]+)"}
    held = load(name, options, root=NOWHERE)
    assert held.in_shape == (3, 12, 12)
    assert "number" in held.train.columns
    monkeypatch.setattr(loading, "BUDGET_BYTES", 0)
    streamed = load(name, options, root=NOWHERE)
    assert isinstance(streamed.train.pictures, StreamedSplit)
    for part in ("train", "validation", "test"):
        assert torch.equal(images_of(getattr(held, part), 7), images_of(getattr(streamed, part), 3))
    assert (held.fingerprint, held.mean.tolist()) == (streamed.fingerprint, streamed.mean.tolist())


def test_masks_leave_where_pixels_move(digits):
    columns = {"mask": torch.zeros(4, 8, 8, dtype=torch.bool), "group": torch.arange(4)}
    split = MemorySplit(digits.test.images[:4], digits.test.labels[:4], columns)
    assert corrupted(split, "cutout", 1).columns.keys() == {"mask", "group"}
    elastic = corrupted(split, "elastic", 1)
    images_of(elastic)  # without original_index its places are its own
    assert elastic.columns.keys() == elastic.select(torch.arange(2)).columns.keys() == {"group"}


def test_every_option_is_part_of_the_fingerprint():
    changed = [{}, {"kind": "jpeg"}, {"severity": 4}, {"corruption_seed": 1}]
    sources = [open_source("corrupted:digits", each, root=NOWHERE, download=False) for each in changed]
    digits = open_source("digits", {}, root=NOWHERE, download=False)
    assert len({digits.fingerprint, *(each.fingerprint for each in sources)}) == 5
    assert {each.pictures for each in sources} == {digits.fingerprint}


def test_pictures_of_a_set_without_a_test_set_are_not_scored_on_what_was_trained_on(folder):
    plain = f"folder:{folder({'a': 30, 'b': 20})}"
    clean = load(plain, {}, root=NOWHERE)

    def scored(name, options, *known):
        return load_for_scoring(name, options, root=NOWHERE, trained_on=known)[0]

    after_clean = scored(f"corrupted:{plain}", NOISE, clean.fingerprint, clean.pictures)
    assert torch.equal(after_clean.columns["original_index"], clean.test.columns["original_index"])
    one = load(f"corrupted:{plain}", {"kind": "jpeg"}, root=NOWHERE)
    assert len(scored(f"corrupted:{plain}", NOISE, one.fingerprint, one.pictures)) == 10
    assert len(scored(plain, {}, one.fingerprint, one.pictures)) == 10
    assert len(scored(f"corrupted:{plain}", NOISE, "other", "")) == 50


def test_sets_of_episodes_can_be_corrupted_too():
    data = load_disjoint(
        "corrupted:glyphs", {"kind": "bars", "classes": 12, "held_out": 3, "drawings": 2}, root=NOWHERE
    )
    assert (len(data.train), len(data.test)) == (24, 6)
    assert (images_of(data.test) == 128).float().mean() > 0.25


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("corrupted", {}, "must be given with a path"),
        ("corrupted:digit", {}, "got 'digit'. Did you mean digits?"),
        ("corrupted:corrupted:digits", {}, "must be one without options called corruption_seed, kind, severity"),
        (
            "corrupted:moving-shapes",
            {"samples": 6},
            "a data set to corrupt must be of still pictures; got one of recordings",
        ),
        ("corrupted:digits", {"severity": 6}, "--dataset.severity must be one of 1, 2, 3, 4, 5; got 6"),
        ("corrupted:digits", {"kind": "fog"}, "--dataset.kind must be one of gaussian-noise, .*; got fog"),
        ("corrupted:digits", {"size": 9}, "got --dataset.size"),
    ],
)
def test_bad_names_and_options(name, options, message):
    with pytest.raises(UserError, match=message):
        open_source(name, options, root=NOWHERE, download=False)


def test_problems_are_those_of_the_set_itself(folder):
    where = folder({"a": 3, "b": 2}, (8, 6))
    registry, name = Registry.discover(), f"corrupted:folder:{where}"
    (where / "a" / "001.png").write_bytes(b"none")
    plain = registry.problems(f"folder:{where}", {"size": 9}, root=NOWHERE, download=False, training=True)
    found = registry.problems(name, {"kind": "jpeg", "size": 9}, root=NOWHERE, download=False, training=True)
    assert plain == found != []
