"""Digits that occlude one another: against one pixel after another, and what images and labels say of each other."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engram.backbone.data import digit_clutter as module
from engram.backbone.data.digit_clutter import DIGITS, FRAGMENTS, Pictures, made
from engram.backbone.data.ink import LONGER, NOTHING, PATCH, painted, stencils
from engram.backbone.data.load import load, open_source
from engram.backbone.data.lots import below, between, lots
from engram.backbone.data.options import DigitClutterOptions
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.backbone.testing import datasets

NOWHERE = Path("/nonexistent")
SMALL = {"train_images": 40, "validation_images": 8, "test_images": 12}
KINDS = [(kind, amount) for kind in ("clutter", "debris") for amount in ("light", "moderate", "heavy")]


def opened(name="digits", **options):
    return open_source(f"digit-clutter:{name}", {**SMALL, **options}, root=NOWHERE, download=False)


@pytest.fixture(scope="module")
def pictures():
    return Pictures.of(load("digits", {}, root=NOWHERE).test, 10)


def covered(picture):
    """Ink and edge ``[PATCH, PATCH]`` of 255 of one picture, one pixel after another, as the protocol says it."""
    rows, columns = np.nonzero(picture >= 64)
    tops, lefts = (rows.min(), columns.min()), (rows.max() + 1, columns.max() + 1)
    scale = max(lefts[axis] - tops[axis] for axis in (0, 1)) / LONGER
    middle = [(tops[axis] + lefts[axis]) / 2 for axis in (0, 1)]
    wide = max(scale, 1)
    ink = np.zeros((PATCH + 2, PATCH + 2))
    for y, x in np.ndindex(PATCH, PATCH):
        at = [middle[axis] + (place + 0.5 - PATCH / 2) * scale for axis, place in enumerate((y, x))]
        near = [
            [max(1 - abs(place + 0.5 - mid) / wide, 0) / wide for place in range(size)]
            for mid, size in zip(at, picture.shape, strict=True)
        ]
        level = np.array(near[0]) @ picture @ np.array(near[1])
        ink[y + 1, x + 1] = min(max(2 * level - 128, 0), 255)
    edge = np.zeros((PATCH, PATCH))
    for y, x in np.ndindex(PATCH, PATCH):
        around = ink[y : y + 3, x : x + 3]
        share = np.array([[0.3125, 0.625, 0.3125], [0.625, 1, 0.625], [0.3125, 0.625, 0.3125]])
        edge[y, x] = (around * share).max()
    return ink[1:-1, 1:-1], edge


def over(pixels, ink, edge):
    """White where the edge is, then black where the ink is."""
    return (pixels + (255 - pixels) * edge / 255) * (1 - ink / 255)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (40, 24)], ids=str)
def test_stencils_against_one_pixel_after_another(images, size):
    drawn = np.zeros((2, *size), np.uint8)
    drawn[:, 1:-2, 2:-1] = images(2, (size[0] - 3, size[1] - 3))
    found = stencils(torch.from_numpy(drawn))
    for paint, picture in zip(found.paint, drawn, strict=True):
        ink, edge = covered(picture)
        for ground in (0, 119, 255):
            ours = painted(torch.full((PATCH, PATCH), ground, dtype=torch.int16), paint).numpy()
            assert np.abs(ours - over(ground, ink, edge)).max() <= 12  # weights are 64ths
            assert ours.min() >= 0 and ours.max() <= 255


def test_digits_are_of_one_size_whatever_their_pictures():
    drawn = torch.zeros(3, 30, 30, dtype=torch.uint8)
    drawn[0, 5:25, 3:8], drawn[1, 10:14, 2:27] = 255, 255  # upright, lying, and nothing at all
    found = stencils(drawn)
    assert found.extent.tolist() == [[20, 8], [6, 20], [20, 20]]
    assert found.start.tolist() == [[1, 7], [8, 1], [1, 1]]
    assert (found.paint[2] == NOTHING).all()
    for paint, start, extent in zip(found.paint[:2], found.start[:2], found.extent[:2], strict=True):
        rows, columns = np.nonzero(paint.numpy() != NOTHING)
        for axis, places in enumerate((rows, columns)):
            assert abs(places.min() - start[axis]) <= 1 and abs(places.max() + 1 - start[axis] - extent[axis]) <= 1
        assert paint[rows.min() + 2 : rows.max() - 1, columns.min() + 2 : columns.max() - 1].eq(0).all()  # black inside


@pytest.mark.parametrize(("kind", "amount"), KINDS)
def test_images_against_one_pixel_after_another(pictures, kind, amount):
    options = DigitClutterOptions(kind=kind, amount=amount)
    keys = lots(np.array([3], np.uint64), 4)[0]
    images, labels, present = made(keys, pictures, options)
    digits = DIGITS[amount] if kind == "clutter" else 1
    fragments = FRAGMENTS[amount] if kind == "debris" else 0
    for key, image, label, there in zip(keys, images, labels, present, strict=True):
        streams = lots(key[None], 3 + fragments)[0]
        classes = np.argsort(lots(streams[:1], 10)[0])[:digits]
        assert there.nonzero()[:, 0].tolist() == sorted(classes) and label == classes[-1]
        canvas = np.full((96, 96), 119, np.int16)
        stencil = pictures.stencils.paint.numpy()
        for digit, one in enumerate(classes):
            which = pictures.first[one] + below(lots(streams[1:2], digits)[0, digit], pictures.count[one])
            down, across = (
                int(below(lots(streams[2:3], digits, 2)[0, digit, axis], 2 * far + 1)) - far
                for axis, far in enumerate((6, 9))
            )
            stamp(canvas, stencil[which], 32 + 16 + down - 11, 32 + 16 + across - 11)
        for stream in streams[3:]:
            lot = lots(stream[None], 6)[0]
            one = below(lot[0], 10)
            which = pictures.first[one] + below(lot[1], pictures.count[one])
            side = int(between(lot[2], 6, 9))
            cut = [inside(lot[3 + axis], pictures.stencils, which, axis, side) for axis in (0, 1)]
            place = [int(below(each, 32 - side + 1)) for each in lots(lot[5:], 2)[0]]
            square = stencil[which, cut[0] : cut[0] + side, cut[1] : cut[1] + side]
            stamp(canvas, square, 32 + place[0], 32 + place[1])
        assert np.array_equal(image[0].numpy(), canvas[32:64, 32:64])


def inside(lot, found, which, axis, side):
    """Where a fragment begins in a stencil: within the digit's box, or in its middle where that is narrower."""
    start, extent = int(found.start[which, axis]), int(found.extent[which, axis])
    return start + (extent - side) // 2 if extent < side else start + int(below(lot, extent - side + 1))


def stamp(canvas, paint, top, left):
    for y, x in np.ndindex(*paint.shape):
        keeps, adds = int(paint[y, x]) >> 8 & 255, int(paint[y, x]) & 255
        canvas[top + y, left + x] = round(int(canvas[top + y, left + x]) * keeps / 255) + adds


def test_the_same_bytes_on_every_machine():
    assert opened().fingerprint == "0123466c651a897cead2de5e45af6ecb2ba5579fb8608ba715fb71883389a127"
    assert (
        opened(kind="debris", amount="heavy").fingerprint
        == "587956e04fde2fb8ff856fc75f29179ef4ccdf6512341b68c25590cc6eb3087e"
    )
    assert opened(seed=1).fingerprint != opened().fingerprint


def test_fewer_images_are_the_first_of_more_and_parts_differ():
    few, more = opened(), opened(train_images=90)
    assert torch.equal(few.train.images, more.train.images[:40])
    assert torch.equal(few.train.columns["present"], more.train.columns["present"][:40])
    for part in ("validation", "test"):
        assert torch.equal(few.parts[part].images, more.parts[part].images)
        assert not torch.equal(few.parts[part].images, few.train.images[: len(few.parts[part])])


def test_no_two_parts_show_the_same_pictures(monkeypatch):
    shown = []
    of = Pictures.of
    monkeypatch.setattr(module.Pictures, "of", lambda split, classes: shown.append(split) or of(split, classes))
    opened()
    base = load("digits", {}, root=NOWHERE)
    assert [len(part) for part in shown] == [len(base.train), len(base.validation), len(base.test)]
    for ours, theirs in zip(shown, (base.train, base.validation, base.test), strict=True):
        assert torch.equal(ours.images, theirs.images)


def test_digits_are_of_all_classes_and_in_all_places(pictures):
    keys = lots(np.array([0], np.uint64), 3000)[0]
    images, labels, present = made(keys, pictures, DigitClutterOptions(amount="heavy"))
    assert present.sum(1).eq(5).all() and present[torch.arange(3000), labels].all()
    assert (present.float().mean(0) - 0.5).abs().max() < 5 * (0.25 / 3000) ** 0.5
    assert (torch.bincount(labels, minlength=10) - 300).abs().max() < 5 * 270**0.5
    seen = (images != 119).any(0)[0]
    assert seen[:, 1:-1].sum() > 0.9 * seen[:, 1:-1].numel()  # up to the border
    debris = made(keys[:300], pictures, DigitClutterOptions(kind="debris"))
    heavy = made(keys[:300], pictures, DigitClutterOptions(kind="debris", amount="heavy"))
    assert torch.equal(debris[1], heavy[1]) and debris[2].sum(1).eq(1).all()  # the same digits under more
    assert (heavy[0] != 119).float().mean() > 1.5 * (debris[0] != 119).float().mean()


@pytest.mark.parametrize("kind", ["clutter", "debris"])
def test_it_keeps_to_what_data_sets_are(kind):
    known = Registry.discover().known("digit-clutter:digits", {**SMALL, "kind": kind}, root=NOWHERE)
    datasets.check_dataset(lambda: opened(kind=kind), lambda: known)
    assert known is not None
    data = load("digit-clutter:digits", {**SMALL, "kind": kind}, root=NOWHERE)
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 8, 12)
    assert len(load("digit-clutter:digits", SMALL, root=NOWHERE, validation=0).train) == 40


def test_what_it_cannot_be_made_of(folder):
    grey, colour = folder({"a": 30, "b": 30}, name="grey"), folder({"a": 9, "b": 9}, (8, 8, 3), name="colour")
    for name, said in (
        (f"folder:{grey}", r"dataset 'folder:.*' must be of at least 3 classes, of which an image has 3; got 2"),
        (f"folder:{colour}", r"digit-clutter:NAME must be the name of a dataset of grey stills; got 3 channels"),
        ("saccades:digits", r"must be the name of a dataset of grey stills; got event frames"),
    ):
        with pytest.raises(UserError, match=said):
            opened(name)
    assert opened(f"folder:{grey}", kind="debris").classes == ("a", "b")
    few = folder({"a": 30, "b": 30, "c": 3}, name="few")
    with pytest.raises(UserError, match=r"every class of 'folder:.*' must be there .*; got none of 'c' for"):
        opened(f"folder:{few}")
    with pytest.raises(UserError, match=r"digit-clutter must be at most 4\.0 GiB; got 9\.5 GiB"):
        opened(train_images=10_000_000)
