"""Objects before other images' backgrounds: whose they are, and that nothing else changes."""

from pathlib import Path

import pytest
import torch

from engram.backbone.data.load import load, open_source
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.backbone.testing import datasets
from engram.causal.data.backgrounds import without_object

NOWHERE = Path("/nonexistent")
BIASED = {"bias": "background", "pairs": False, "aligned": 0.9, "test_bias": "own"}


def opened(name="backgrounds:biased:digits", **options):
    return open_source(name, {**BIASED, **options}, root=NOWHERE, download=False)


def images_of(split, batch_size=500):
    return torch.cat([x for x, _, _ in split.batches(torch.arange(len(split)), batch_size, "cpu")])


@pytest.fixture(scope="module")
def plain():
    return opened("biased:digits")


def whose(split, classes):
    return torch.tensor([classes.index(each.removeprefix("background of ")) for each in split.columns["background"]])


def test_what_stands_in_an_objects_place():
    images = torch.randint(0, 256, (9, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(9, 6, 5, dtype=torch.bool)
    masks[:8, 1:4, 2:] = True
    masks[8] = True
    found = without_object(images, masks)
    for image, mask, made in zip(images[:8], masks, found, strict=False):
        assert torch.equal(made[:, ~mask], image[:, ~mask])
        mean = image[:, ~mask].double().mean(1)
        assert (made[:, mask] - mean[:, None]).abs().max() <= 0.5001
    assert not found[8].any()


@pytest.mark.parametrize("how", ["same", "random"])
def test_objects_stay_and_backgrounds_are_those_of_other_images(plain, how):
    source = opened(backgrounds=how)
    for part in ("train", "test"):
        assert torch.equal(source.parts[part].labels, plain.parts[part].labels)
    assert torch.equal(images_of(source.train), images_of(plain.train))
    test, before = images_of(source.test), images_of(plain.test)
    mask = plain.test.columns["foreground"][:, None].expand_as(test)
    assert torch.equal(test[mask], before[mask])
    names = source.classes
    background = whose(source.test, names)
    share = (background == source.test.labels).double().mean().item()
    assert share == 1.0 if how == "same" else abs(share - 0.1) < 5 * (0.09 / len(background)) ** 0.5
    hues = torch.stack([before[:, :, 0, 0][plain.test.labels == k].mode(0).values for k in range(10)])
    assert torch.equal(test[:, :, 0, 0], hues[background])  # every image of a class has one hue behind it
    told = zip(source.test.labels, source.test.columns["background"], strict=True)
    assert source.test.columns["group"] == tuple(f"{names[label]}, {value}" for label, value in told)
    assert source.pictures == open_source("digits", {}, root=NOWHERE, download=False).fingerprint


def test_no_image_keeps_its_own_background():
    source = opened(backgrounds="same", bias="texture", aligned=1.0)
    before = opened("biased:digits", bias="texture", aligned=1.0)
    kept = (images_of(source.test) == images_of(before.test)).flatten(1).all(1)
    assert kept.sum() <= 2  # two images may look alike
    assert opened(backgrounds="same", background_seed=1).fingerprint != opened(backgrounds="same").fingerprint


def test_only_the_foreground(plain):
    source = opened(backgrounds="none")
    mask = plain.test.columns["foreground"][:, None]
    assert torch.equal(images_of(source.test), images_of(plain.test) * mask)
    assert set(source.test.columns["background"]) == {"no background"}


def test_in_whatever_batch_and_order():
    known = Registry.discover().known("backgrounds:biased:digits", BIASED, root=NOWHERE)
    datasets.check_dataset(lambda: opened(backgrounds="random"), lambda: known)
    assert known is not None
    data = load("backgrounds:biased:digits", {**BIASED, "backgrounds": "random"}, root=NOWHERE)
    assert len(data.validation) and data.test.columns["foreground"].shape == (len(data.test), 8, 8)


def test_an_object_must_be_known():
    with pytest.raises(UserError, match=r"dataset 'digits' must be one of stills with a column foreground; got one"):
        open_source("backgrounds:digits", {}, root=NOWHERE, download=False)
