"""Shortcuts: how often an image has that of its class, what is painted where, and that each image is its own."""

import colorsys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engram.backbone.data import load as loading
from engram.backbone.data.load import load, open_source
from engram.backbone.data.sets import MemorySplit, Source
from engram.backbone.data.streaming import StreamedSplit
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.backbone.testing import datasets
from engram.causal.data import biased as module
from engram.causal.data.options import SHORTCUTS, BiasedOptions
from engram.causal.data.painting import palette

NOWHERE = Path("/nonexistent")
KINDS = [*SHORTCUTS]


def opened(name="digits", **options):
    return open_source(f"biased:{name}", options, root=NOWHERE, download=False)


def images_of(split, batch_size=500):
    return torch.cat([x for x, _, _ in split.batches(torch.arange(len(split)), batch_size, "cpu")])


@pytest.fixture
def folder(tmp_path):
    """The name of a set of 50 pictures in colour, of two classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
    for number, each in enumerate(pixels):
        where = tmp_path / ("a" if number < 30 else "b")
        where.mkdir(exist_ok=True)
        Image.fromarray(each).save(where / f"{number:02d}.png")
    return f"folder:{tmp_path}"


def whose(split, classes, shortcut):
    """Of which class each image's shortcut is."""
    names = {f"{shortcut.replace('_', ' ')} of {each}": number for number, each in enumerate(classes)}
    return torch.tensor([names[each] for each in split.columns[shortcut]])


def within(count, of, share):
    """Whether a count is within five deviations of what a share of so many gives."""
    return abs(count - of * share) <= 5 * (of * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_shortcuts_are_those_of_the_class_as_often_as_asked(kind):
    source = opened(bias=kind, aligned=0.8, watermark=True)
    classes = source.classes
    shortcuts = dict.fromkeys((*SHORTCUTS[kind], "patch"))
    assert len(classes) == (5 if kind == "background" else 10)
    for part, share in (("train", 0.8), ("test", 1 / len(classes))):
        split = source.parts[part]
        for shortcut in shortcuts:
            found = whose(split, classes, shortcut)
            own = found == split.labels
            assert within(int(own.sum()), len(own), share)
            away = (found - split.labels)[~own] % len(classes)  # all others equally often
            counts = torch.bincount(away, minlength=len(classes))[1:]
            assert all(within(int(count), len(away), 1 / (len(classes) - 1)) for count in counts)
            shortcuts[shortcut] = own
        if len(shortcuts) > 1:
            one, two = list(shortcuts.values())[:2]
            assert within(int((one & two).sum()), len(one), share**2)  # each by lots of its own
            words = [shortcut.replace("_", " ") for shortcut in shortcuts]
            told = zip(split.labels, *shortcuts.values(), strict=True)
            assert split.columns["group"] == tuple(
                ", ".join(
                    (classes[label], *(f"{'own' if o else 'other'} {w}" for o, w in zip(owns, words, strict=True)))
                )
                for label, *owns in told
            )
        else:
            values = split.columns["patch"]
            assert split.columns["group"] == tuple(
                f"{classes[label]}, {value}" for label, value in zip(split.labels, values, strict=True)
            )


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_a_function_of_its_place_and_nothing_else(kind):
    source = opened(bias=kind, aligned=0.7, watermark=True, feature_noise=0.5)
    whole = images_of(source.train)
    assert whole.shape == (len(source.train), 3, 8, 8) and whole.is_contiguous()
    assert torch.equal(images_of(opened(bias=kind, aligned=0.7, watermark=True, feature_noise=0.5).train, 7), whole)
    rows = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[:50]
    fresh = opened(bias=kind, aligned=0.7, watermark=True, feature_noise=0.5).train.select(rows)
    assert torch.equal(images_of(fresh, 3), whole[rows])
    assert torch.equal(images_of(fresh.select(torch.tensor([4, 1])).and_also(fresh)), whole[rows[[4, 1, *range(50)]]])
    other = opened(bias=kind, aligned=0.7, bias_seed=1)
    assert other.train.columns["group"] != source.train.columns["group"]
    known = Registry.discover().known("biased:digits", {"bias": kind}, root=NOWHERE)
    datasets.check_dataset(lambda: opened(bias=kind), lambda: known)
    assert known is not None


def test_streamed_pictures_with_the_columns_of_their_own_set(folder, monkeypatch):
    options = {"name_pattern": "(?P<number>[0-9])", "environment": "number", "aligned": 0.5, "watermark": True}
    held = opened(folder, **options)
    monkeypatch.setattr(loading, "BUDGET_BYTES", 0)
    streamed = opened(folder, **options)
    assert isinstance(streamed.train.pictures, StreamedSplit) and held.fingerprint == streamed.fingerprint
    for part in ("train", "test"):
        one, two = held.parts[part], streamed.parts[part]
        assert torch.equal(images_of(one, 9), images_of(two, 4)) and one.columns["group"] == two.columns["group"]
        assert torch.equal(one.columns["environment"], one.columns["number"])
        assert one.moments()[0].tolist() == two.moments()[0].tolist()
    plain = load(folder, {}, root=NOWHERE)
    assert torch.equal(plain.test.columns["original_index"], held.test.columns["original_index"])
    assert held.keys is not None and len(held.keys) == 50


def test_colours_and_squares_are_where_they_belong():
    plain = open_source("digits", {}, root=NOWHERE, download=False).train.images[:, 0].int()
    hues = palette(10)
    source = opened(bias="colour", colour_severity=5, aligned=1.0, watermark=True)
    images, labels = images_of(source.train).int(), source.train.labels
    assert (images[:, :, :6] - plain[:, None, :6] * hues[labels][:, :, None, None] // 255).abs().max() <= 3
    assert torch.equal(images[:, :, -2:, -2:], hues[labels][:, :, None, None].expand(-1, -1, 2, 2))
    assert torch.equal(source.train.columns["foreground"], plain >= 128)
    rough = images_of(opened(bias="colour", colour_severity=1, aligned=1.0).train).int()
    spread = (rough - plain[:, None] * hues[labels][:, :, None, None] // 255)[plain[:, None].expand_as(rough) == 255]
    middle = hues[labels][:, :, None, None].expand_as(rough)[plain[:, None].expand_as(rough) == 255] % 255 != 0
    assert spread[middle].double().std() == pytest.approx(0.05 * 255, rel=0.15)  # where nothing is cut off


@pytest.mark.parametrize(
    ("difficulty", "count", "corner"),
    [
        ("magnitude-large", 784, 28),
        ("magnitude-medium", 16, 4),
        ("magnitude-small", 4, 2),
        ("variance-low", 49, 7),
        ("variance-medium", 49, 14),
        ("variance-high", 49, 28),
    ],
)
def test_how_much_of_a_background_is_coloured(difficulty, count, corner, monkeypatch):
    black = {
        "train": torch.zeros(40, 1, 28, 28, dtype=torch.uint8),
        "test": torch.zeros(40, 1, 28, 28, dtype=torch.uint8),
    }
    labels = torch.arange(40) % 10
    parts = {name: MemorySplit(images, labels, {"original_index": torch.arange(40)}) for name, images in black.items()}
    monkeypatch.setattr(module, "open_source", lambda *_, **__: Source(parts, tuple("0123456789"), "x" * 64))
    source = module.open_biased(
        "digits", BiasedOptions(bias="background", difficulty=difficulty), root=NOWHERE, download=False, budget_bytes=0
    )
    coloured = images_of(source.train).any(1)
    assert coloured.sum((1, 2)).eq(count).all()
    assert not coloured[:, corner:].any() and not coloured[:, :, corner:].any()
    assert bool((coloured[0] != coloured[1]).any()) == (difficulty in ("variance-medium", "variance-high"))
    found = images_of(source.train).amax((2, 3)).int()
    assert torch.equal(found, palette(5)[whose(source.train, source.classes, "background")])


@pytest.mark.parametrize(("how", "share"), [("own", 1.0), ("other", 0.0)])
def test_what_test_images_may_show(how, share):
    source = opened(bias="background", test_bias=how)
    own = whose(source.test, source.classes, "background") == source.test.labels
    assert own.double().mean() == share
    assert torch.equal(images_of(source.train), images_of(opened(bias="background").train))


@pytest.mark.parametrize("kind", KINDS)
def test_objects_alone(kind):
    source = opened(bias=kind, test_bias="none", watermark=True)
    plain = open_source("digits", {}, root=NOWHERE, download=False).test.images
    assert torch.equal(images_of(source.test), plain.expand(-1, 3, -1, -1))
    assert source.test.columns["patch"] == ("no patch",) * len(plain)
    assert all("no patch" in group for group in source.test.columns["group"])


def test_noise_of_labels_and_objects_is_in_training_alone():
    clean, noisy = (opened(bias="background", label_noise=noise, feature_noise=noise) for noise in (0.0, 0.3))
    changed = clean.train.labels != noisy.train.labels
    assert within(int(changed.sum()), len(changed), 0.3) and torch.equal(clean.test.labels, noisy.test.labels)
    assert noisy.train.columns["background"] == clean.train.columns["background"]  # that of the class it shows
    assert torch.equal(images_of(noisy.test), images_of(clean.test))
    white = clean.train.columns["foreground"]
    lacking = (images_of(clean.train) != images_of(noisy.train)).any(1) & white
    lossy = lacking.any((1, 2))
    assert within(int(lossy.sum()), len(lossy), 0.3)
    assert within(int(lacking.sum()), int(white[lossy].sum()), 0.6)


def test_images_to_choose_on_are_biased_unless_they_are_to_be_none():
    biased = load("biased:digits", {"aligned": 0.9}, root=NOWHERE, validation=0.3)
    fair = load("biased:digits", {"aligned": 0.9, "unbiased_validation": 0.3}, root=NOWHERE)
    assert torch.equal(biased.validation.columns["original_index"], fair.validation.columns["original_index"])
    for data, share in ((biased, 0.9), (fair, 0.1)):
        own = whose(data.validation, data.classes, "colour") == data.validation.labels
        assert within(int(own.sum()), len(own), share)


def test_hues_are_those_of_the_colour_wheel():
    for count in (2, 5, 7, 10, 40):
        wheel = [[255 * share for share in colorsys.hsv_to_rgb(k / count, 1, 1)] for k in range(count)]
        assert (palette(count) - torch.tensor(wheel)).abs().max() <= 0.5001


def test_biased_images_can_be_corrupted():
    options = {"bias": "background", "kind": "contrast", "severity": 2}
    source = open_source("corrupted:biased:digits", options, root=NOWHERE, download=False)
    plain = opened(bias="background")
    assert source.train.columns["group"] == plain.train.columns["group"]
    assert torch.equal(source.train.columns["foreground"], plain.train.columns["foreground"])
    assert not torch.equal(images_of(source.test), images_of(plain.test))


def test_pairs_of_classes():
    source = opened(bias="colour", pairs=True)
    plain = open_source("digits", {}, root=NOWHERE, download=False)
    assert source.classes == ("0 or 1", "2 or 3", "4 or 5", "6 or 7", "8 or 9")
    assert torch.equal(source.train.labels, plain.train.labels // 2)
    assert len(opened(bias="background", pairs=False).classes) == 10


def test_every_option_is_part_of_the_fingerprint():
    changed = [
        *({"bias": kind} for kind in KINDS),
        *({"watermark": True}, {"aligned": 0.5}, {"bias_seed": 1}, {"test_bias": "own"}, {"label_noise": 0.1}),
        *({"unbiased_validation": 0.2}, {"colour_severity": 1}, {"pairs": True}, {"feature_noise": 0.1}),
        {"difficulty": "variance-low"},
    ]
    found = [opened(**each) for each in changed]
    assert len({each.fingerprint for each in found}) == len(changed)
    plain = open_source("digits", {}, root=NOWHERE, download=False)
    assert {each.pictures for each in found} == {plain.fingerprint}


def test_the_same_bytes_on_every_machine():
    found = {}
    for kind in KINDS:
        images = images_of(opened(bias=kind, aligned=0.5).test).long()
        weights = 1 + torch.arange(images[0].numel()).view_as(images[0]) % 251
        found[kind] = int((images * weights).sum())
    assert found == {
        "colour": 261745987,
        "double-colour": 501411392,
        "texture": 675340317,
        "patch": 571490385,
        "background": 1086034508,
    }


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("saccades:digits", {}, "biased:NAME must be the name of a data set of stills, .*; got event frames"),
        ("coloured-digits:irm", {}, "grey or in three channels; got 2 channels"),
        (
            "glyphs",
            {"classes": 8, "held_out": 3, "drawings": 2},
            "one with the same classes in every part, to be biased",
        ),
        ("corrupted:biased:digits", {"pairs": True}, "one without options called"),
    ],
)
def test_what_cannot_be_biased(name, options, said):
    with pytest.raises(UserError, match=said):
        opened(name, **options)


def test_a_mask_is_needed_where_backgrounds_are_painted(folder):
    with pytest.raises(UserError, match=r"grey or with a column foreground, for --dataset.bias texture; got colour"):
        opened(folder, bias="texture")
    with pytest.raises(UserError, match=r"must be of at least 3 classes, to be biased; got 2"):
        opened(folder, bias="patch", pairs=True)
    look = {"root": NOWHERE, "download": False}
    assert Registry.discover().problems("biased:folder:/nowhere", {}, training=True, **look)
    assert Registry.discover().files(f"biased:{folder}", root=NOWHERE).name == "biased:folder"


def test_an_object_in_its_mask_is_shown_before_another_background(monkeypatch):
    pictures = torch.randint(1, 256, (20, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    masks = torch.zeros(20, 6, 6, dtype=torch.bool)
    masks[:, 1:4, 2:5] = True
    columns = {"original_index": torch.arange(20), "foreground": masks}
    split = MemorySplit(pictures, torch.arange(20) % 2, columns)
    monkeypatch.setattr(module, "open_source", lambda *_, **__: Source({"train": split}, ("a", "b"), "x" * 64))

    def images(**options):
        found = module.open_biased("digits", BiasedOptions(**options), root=NOWHERE, download=False, budget_bytes=0)
        return found.train.pictures.images, images_of(found.train), found.train

    before, after, train = images(bias="background", aligned=1.0)
    behind = ~train.columns["foreground"][:, None].expand_as(after)
    assert torch.equal(after[~behind], before[~behind])
    hues = palette(2).byte()[train.labels][:, :, None, None].expand_as(after)
    assert torch.equal(after[behind], hues[behind])
    before, after, _ = images(bias="colour")
    assert torch.equal(after[behind], before[behind]) and not torch.equal(after[~behind], before[~behind])
