"""What do() refuses: places that a network does not have, kinds that cannot be, and what never changed anything."""

import numpy as np
import pytest
import torch

from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.causal import collected, do
from engram.causal.intervening.place import Box, Place

SHAPE = (2, 8, 8)
ADAPTERS = {"plain": [], "recurrent": [("feedback.gated", {"steps": 3})]}


def made(kind):
    named = [in_full(Registry.discover(), "adapters", name, options) for name, options in ADAPTERS[kind]]
    return build("vgg-tiny", {"width": 0.25}, SHAPE, 3, torch.zeros(2), torch.ones(2), adapters=named).eval()


@pytest.fixture(scope="module")
def models():
    return {kind: made(kind) for kind in ADAPTERS}


@pytest.fixture(scope="module")
def images():
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))


WRONG = {
    "stage": ({"stage": 7}, "stage must be from 0 to 2; got 7. It has 3 stages; sites by name: input, "),
    "name": ({"name": "feature"}, "got feature. Did you mean features?"),
    "neither": ({}, "a place in a network must be a stage or the name of another site; got neither"),
    "channel": ({"stage": 0, "channel": (3, 99)}, r"channel of stages.0 must be from 0 to 3, .*; got 99"),
    "below": ({"stage": 0, "channel": -1}, r"channels of stages.0 must be different whole numbers from 0.*got \[-1\]"),
    "mask": (
        {"stage": 0, "region": torch.ones(8, 8, dtype=torch.bool)},
        "the mask of a region of stages.0 must be 4 by 4 cells, as the maps of this site are; got 8 by 8. Resize it.",
    ),
    "empty mask": ({"stage": 0, "region": torch.zeros(4, 4, dtype=torch.bool)}, "must be True in some cell"),
    "box": ({"stage": 0, "region": (0, 0, 5, 4)}, r"within 4 by 4 cells.*got \(0, 0, 5, 4\)"),
    "part of a channel": (
        {"stage": 0, "channel": 2.5},
        "channel of a place must be a whole number, or several; got 2.5",
    ),
    "channels by truth": (
        {"stage": 0, "channel": np.array([True, False])},
        "channel of a place must be a whole number",
    ),
    "tensor twice": ({"stage": 0, "channel": torch.tensor([1, 1])}, r"must be different whole numbers.*got \[1, 1\]"),
    "stages": ({"stage": (0, 1)}, r"stage must be a whole number from 0; got \(0, 1\)"),
    "region": ({"stage": 0, "region": 3}, r"region of a place must be \(top, left, bottom, right\) .*; got 3"),
    "three sides": ({"stage": 0, "region": (0, 0, 2)}, r"region of a place must be .*; got \(0, 0, 2\)"),
    "array": ({"stage": 0, "region": np.ones((4, 4))}, r"must be \[H, W\] bool; got torch.float"),
    "empty box": ({"stage": 0, "region": (2, 0, 2, 4)}, "with top < bottom and left < right"),
    "no map": ({"name": "features", "region": (0, 0, 1, 1)}, "features with a region must be maps"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_place_that_is_not_there_is_refused_at_once(models, wrong):
    where, message = WRONG[wrong]
    with pytest.raises(UserError, match=message):
        do(models["plain"], **where).zero()


@pytest.mark.parametrize("one", [np.int64(1), torch.tensor(1), torch.tensor([1]), np.array([1]), [torch.tensor(1)]])
def test_whole_numbers_and_masks_are_taken_of_any_type(models, one):
    known = do(models["plain"], stage=1, step=0, channel=1).zero()
    same = do(models["plain"], stage=np.int64(1), step=torch.tensor([0]), channel=one)
    assert str(same.zero()) == str(known) and type(same.place.channels[0]) is int
    with pytest.raises(UserError, match="places of interventions that are done at once must be apart"):
        _ = same.zero() & do(models["plain"], stage=1, channel=one).set(2.0)
    mask = np.eye(4, dtype=bool)[::-1]
    assert do(models["plain"], stage=0, region=mask).place.region.tolist() == mask.tolist()


def test_kinds_refuse_what_cannot_be(models, images):
    model = models["plain"]
    aim, labels = do(model, stage=0), torch.zeros(6, dtype=torch.int64)
    for make, message in (
        (lambda: aim.noise(-1.0), "the deviation of noise must be a number from 0; got -1.0"),
        (lambda: aim.interpolate(1.5), "the share of another value must be from 0 to 1; got 1.5"),
        (lambda: aim.class_mean(images, labels[:2], 0), "labels of a class mean must be one for each of 6 images"),
        (lambda: aim.class_mean(images, labels, 4), r"one that has images \(0\); got 4"),
        (lambda: aim.background(torch.ones(6, 8, 8)), r"masks of the foreground must be \[B, H, W\] bool"),
        (lambda: aim.background(torch.ones(1, 4, 4, dtype=torch.bool)), "must be 8x8, as the images are; got 4x4"),
        (lambda: aim.mean(images[:, :1]), r"must be \[N, C, H, W\] of 2x8x8, .*; got \[6, 1, 8, 8\]"),
        (lambda: aim.zero() & aim.mean(), "places of interventions that are done at once must be apart"),
        (lambda: aim.zero() & do(made("plain"), stage=1).zero(), "must be of one network; got two"),
        (lambda: do("model", stage=0).zero(), "the network to intervene in must be a torch.nn.Module; got str"),
    ):
        with pytest.raises(UserError, match=message):
            make()
    for doing, message in (
        (do(model, name="features").background(torch.ones(6, 8, 8, dtype=torch.bool)), "must be one with maps"),
        (aim.set(torch.ones(3)), "or one for each of the 4 channels of the place; got shape"),
        (aim.mean(images[:0]), "images whose values are taken must be at least one; got 0"),
    ):
        with pytest.raises(UserError, match=message), doing:
            model(images)
    with pytest.raises(UserError, match="a batch must be at least 2 images"), aim.resample():
        model(images[:1])


def test_what_never_changed_anything_is_an_error(models, images):
    model = models["recurrent"]
    with (
        pytest.raises(UserError, match="a network under interventions must be run inside the with-block; got no run"),
        do(model, stage=0).zero(),
    ):
        pass
    with (
        pytest.raises(UserError, match=r"step of stages.1 must be among those that ran \(0, 1, 2\); got 5"),
        do(model, stage=1, step=(0, 5)).zero(),
    ):
        model(images)
    with (
        pytest.raises(UserError, match=r"step of input must be among those that ran \(0, 1, 2\); got 3"),
        do(model, name="input", step=3).zero(),
    ):
        model(images)
    with pytest.raises(UserError, match=r"step of stages.1 must be among .*; got 4"):
        collected(model, images, [Place(1, steps=(1, 4))])
    doing = do(model, stage=1).zero()
    with doing:
        model(images)
    with pytest.raises(UserError, match="got no run"), doing:  # every time
        pass


def test_places_meet_where_they_have_a_value_in_common():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, 0] = True
    here = Place(1, channels=(0, 1), region=Box(0, 0, 2, 2))
    assert here.meets(Place(1)) and here.meets(Place(name="stages.1", channels=(1,), region=mask))
    assert not here.meets(Place(2)) and not here.meets(Place(1, channels=(2,)))
    far = torch.zeros(4, 4, dtype=torch.bool)
    far[3] = True
    assert not here.meets(Place(1, region=Box(2, 0, 4, 4))) and not here.meets(Place(1, region=far))
    assert not Place(1, region=far).meets(Place(1, region=mask)) and Place(1, region=far).meets(Place(1, region=far))
    assert not Place(1, steps=(0,)).meets(Place(1, steps=(1,)))
