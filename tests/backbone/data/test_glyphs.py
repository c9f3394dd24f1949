"""Procedural characters: the same bytes everywhere, apart in every part, and worth learning."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engram.backbone.data import pen
from engram.backbone.data.glyph_shapes import STROKES, at, characters
from engram.backbone.data.load import load, load_disjoint, open_source
from engram.backbone.data.lots import around, below, between, lots
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry

NOWHERE = Path("/nonexistent")
SMALL = {"classes": 30, "held_out": 6, "drawings": 5}


def opened(**options):
    return open_source("glyphs", {**SMALL, **options}, root=NOWHERE, download=False)


def test_the_same_bytes_on_every_machine():
    assert opened().fingerprint == "e008acd8181303156c87bd24734fbcc55b87194da417ed1a6815aeb952784618"
    assert opened(seed=1).fingerprint != opened().fingerprint


def test_parts_share_no_class_and_no_alphabet():
    source = opened()
    assert source.disjoint and list(source.parts) == ["train", "validation", "test"]
    assert [len(part) for part in source.parts.values()] == [150, 30, 30]
    alphabets = [set(part.columns["alphabet"]) for part in source.parts.values()]
    assert alphabets == [{"train000", "train001"}, {"validation000"}, {"test000"}]
    labels = torch.cat([part.labels for part in source.parts.values()])
    assert torch.equal(labels, torch.arange(42).repeat_interleave(5))
    for part in source.parts.values():
        names = zip(part.columns["alphabet"], part.columns["character"], strict=True)
        assert [f"{a}/{c}" for a, c in names] == [source.classes[label] for label in part.labels.tolist()]
        assert part.columns["writer"].tolist() == [1, 2, 3, 4, 5] * (len(part) // 5)


def test_they_are_loaded_for_episodes_alone():
    data = load_disjoint("glyphs", SMALL, root=NOWHERE)
    assert (data.in_shape, len(data.classes), len(data.test)) == ((1, 28, 28), 42, 30)
    assert 0.05 < data.mean.item() < 0.3  # white on black
    said = "dataset 'glyphs' must be of the same classes in every part, to train a classifier on"
    with pytest.raises(UserError, match=said):
        load("glyphs", SMALL, root=NOWHERE)
    look = Registry.discover().problems
    assert look("glyphs", SMALL, root=NOWHERE, download=False, training=False) == []
    assert said in look("glyphs", SMALL, root=NOWHERE, download=False, training=True)[0]


def test_fewer_classes_are_the_first_of_more():
    few, many = opened(classes=7), opened(classes=60)
    assert torch.equal(few.train.images, many.train.images[: 7 * 5])
    for part in ("validation", "test"):
        assert torch.equal(few.parts[part].images, many.parts[part].images)


def test_fewer_drawings_are_by_the_first_writers():
    few, many = opened(drawings=2).train.images, opened(drawings=6).train.images
    assert torch.equal(few.view(30, 2, 28, 28), many.view(30, 6, 28, 28)[:, :2])


def test_no_two_drawings_are_equal():
    source = opened(drawings=20)
    images = torch.cat([part.images for part in source.parts.values()]).flatten(1)
    assert len(images.unique(dim=0)) == len(images)
    assert images.amax(1).min() == 255  # every pen reaches full ink


def test_nearest_pixels_are_well_above_chance():
    images = opened(classes=2, held_out=20, drawings=6).parts["test"].images.float().view(20, 6, -1)
    images = images / images.norm(dim=2, keepdim=True)
    support, queries = images[:, 0], images[:, 1:]
    right = (queries @ support.T).argmax(2) == torch.arange(20)[:, None]
    assert 0.25 < right.float().mean() < 0.75  # of 20 ways; chance is 0.05


def test_writers_are_told_apart_by_their_pens():
    """Of all drawings of an alphabet, those of one writer differ less in their ink than those of all."""
    ink = opened(classes=25, drawings=20).train.images.float().mean((1, 2, 3)).view(25, 20)
    relative = ink / ink.mean(1, keepdim=True)
    assert relative.mean(0).std() > 2 * relative.std() / 25**0.5


@pytest.mark.parametrize("size", [12, 28, 61])
def test_a_drawing_is_the_pen_at_every_point_of_its_strokes(size):
    made = characters(lots(np.array([3], np.uint64), 1)[0], 4)
    points = pen._points(made.curves, *(lots(np.array([place], np.uint64), 4)[0] for place in (1, 2)), size)
    widths = np.array([0, 3, 5, 7])
    found = pen._inked(points, made.strokes, widths, size)
    for n in range(4):
        dots = points[n, : made.strokes[n]].reshape(-1, 2) * 2  # in sixteenths of a pixel
        middle = np.arange(size) * 16 + 8
        square = (middle[None, None, :] - dots[:, :1, None]) ** 2 + (middle[None, :, None] - dots[:, 1:, None]) ** 2
        radius = int(13 + widths[n]) * size // 28
        outer, inner = (radius + 8) ** 2, max(radius - 8, 0) ** 2
        ink = np.clip(np.floor(255 * (outer - square) / (outer - inner)), 0, 255).max(0)
        assert np.array_equal(found[n], ink)


def test_curves_are_bezier_curves():
    curve = np.array([[0, 0], [100, 900], [700, -300], [512, 256]])
    t = np.arange(33)[:, None] / 32
    weights = [(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3]
    exact = sum(weight * point for weight, point in zip(weights, curve, strict=True))
    assert np.abs(at(curve, np.arange(33), 32) - exact).max() <= 1


def test_characters_have_two_to_four_strokes_about_the_middle():
    made = characters(np.array([5], np.uint64), 100)
    assert set(made.strokes.tolist()) == {2, 3, 4}
    drawn = np.arange(STROKES) < made.strokes[:, None]
    ends = made.curves[:, :, [0, 3]][drawn]
    assert np.abs(ends).max() <= 361
    assert np.array_equal(made.alphabet, np.arange(100) // 25)


def test_lots_are_uniform_and_their_own():
    keys = lots(np.array([0], np.uint64), 50)[0]
    many = lots(keys, 1000)
    assert len(np.unique(many)) == many.size
    assert np.array_equal(lots(keys, 10), many[:, :10])
    counts = np.bincount(below(many, 7).ravel(), minlength=7)
    assert len(counts) == 7 and np.abs(counts / many.size - 1 / 7).max() < 0.005
    assert set(between(many, -2, 1).ravel()) == {-2, -1, 0, 1}
    triangular = around(many, 10)
    assert (triangular.min(), triangular.max()) == (-10, 10) and abs(triangular.mean()) < 0.1
    assert np.abs(np.corrcoef(many[:2].astype(float))[0, 1]) < 0.1


def test_what_would_not_fit_is_refused():
    with pytest.raises(UserError, match=r"glyphs must be at most 4\.0 GiB; got .* GiB\. Ask for fewer"):
        opened(classes=100_000, size=256)
