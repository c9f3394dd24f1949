import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from engram.backbone.data import camera as module
from engram.backbone.data import load as loading
from engram.backbone.data.camera import Camera, saccades
from engram.backbone.data.event_options import SaccadesOptions
from engram.backbone.data.load import load, load_for_scoring, open_source
from engram.backbone.data.streaming import StreamedSplit
from engram.backbone.errors import UserError

NOWHERE = Path("nowhere")


def seen(picture, options, y, x):
    """What a sensor sees of ``[h, w]`` numbers moved by ``y, x`` quarters of a pixel, one pixel after the other."""
    height, width = picture.shape
    out = np.zeros((height + options.travel, width + options.travel), int)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            for down in (0, 1):
                for right in (0, 1):
                    r, c = row - y // 4 - down, column - x // 4 - right
                    if 0 <= r < height and 0 <= c < width:
                        weight = (y % 4 if down else 4 - y % 4) * (x % 4 if right else 4 - x % 4)
                        out[row, column] += weight * int(picture[r, c])
    return out


def one_by_one(picture, options, thresholds):
    """Events ``[T, 2, H, W]`` found pixel after pixel and event after event, in double precision."""
    path = saccades(options.travel)
    logs = np.stack([np.rint(np.log(options.dark + seen(picture, options, *at) / 4080) * 2**16) for at in path])
    out = np.zeros((options.frames, 2, *logs.shape[1:]), int)
    for row, column in np.ndindex(*logs.shape[1:]):
        memory, threshold = logs[0, row, column], thresholds[row, column]
        for look in range(1, len(path)):
            frame = math.floor((look - 1) * options.frames / (len(path) - 1))
            while abs(logs[look, row, column] - memory) >= threshold:
                brighter = logs[look, row, column] > memory
                memory += threshold if brighter else -threshold
                out[frame, int(brighter), row, column] += 1
    return out


@pytest.mark.parametrize(
    "options",
    [
        {"travel": 2, "frames": 4},
        {"travel": 3, "frames": 5, "threshold": 0.1, "mismatch": 0.2},
        {"travel": 1, "frames": 6, "dark": 0.01},
    ],
)
def test_camera_against_one_pixel_after_the_other(images, options):
    o = SaccadesOptions(**options)
    pictures = images(3, (5, 4))
    camera = Camera((1, 5, 4), o)
    events = camera(torch.from_numpy(pictures)[:, None])
    assert events.dtype == torch.uint8
    for picture, found in zip(pictures, events, strict=True):
        assert (one_by_one(picture, o, camera._threshold.numpy()) == found.numpy()).all()


def test_the_picture_comes_back_to_where_it_was():
    path = saccades(6)
    assert (path[0], path[12], path[24], path[36]) == ((0, 0), (24, 12), (0, 24), (0, 0))
    assert max(max(abs(a - c), abs(b - d)) for (a, b), (c, d) in pairwise(path)) == 2


def test_a_shift_by_whole_pixels_keeps_the_picture(images):
    picture = torch.from_numpy(images(2, (6, 6)))
    assert torch.equal(module._between(picture.int(), 0, 0)[:, :-1, :-1], picture.int() * 16)


def test_brighter_and_darker_follow_the_edges():
    """A white square goes four pixels down and two to the right in the first saccade."""
    picture = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    picture[:, :, 3:6, 3:6] = 255
    events = Camera((1, 8, 8), SaccadesOptions(frames=12, travel=4, mismatch=0))(picture)[0].int()
    darker, brighter = events[:4].sum(0)
    before, after = (slice(3, 6), slice(3, 6)), (slice(7, 10), slice(5, 8))
    assert darker[before].all()
    assert brighter[after].all()
    assert not brighter[before].any()
    assert not darker[after].any()
    assert not events[:, :, 11:].any()  # it travels four pixels and no further


def test_a_black_picture_makes_no_event_and_a_lower_threshold_makes_more(images):
    def total(pictures, **options):
        return int(Camera((1, 8, 8), SaccadesOptions(**options))(pictures).sum())

    pictures = torch.from_numpy(images(4))[:, None]
    assert total(torch.zeros_like(pictures)) == 0
    assert total(pictures, threshold=0.2) > total(pictures, threshold=0.4) > 0


def test_frames_add_up_to_the_same_events(images):
    pictures = torch.from_numpy(images(4))[:, None]
    sums = [Camera((1, 8, 8), SaccadesOptions(frames=frames))(pictures).int().sum(1) for frames in (1, 5, 12, 36)]
    assert all(torch.equal(each, sums[0]) for each in sums[1:])


def test_counts_stop_at_255():
    picture = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)
    events = Camera((1, 4, 4), SaccadesOptions(frames=1, threshold=0.001, mismatch=0))(picture)
    assert int(events.max()) == 255


def test_grey_is_luma_and_grey_pictures_stay():
    camera = Camera((3, 1, 3), SaccadesOptions())
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8).T[None, :, None]
    assert camera._grey(colours).flatten().tolist() == [76, 149, 28]
    grey = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    assert torch.equal(Camera((3, 1, 256), SaccadesOptions())._grey(grey).flatten(), torch.arange(256).int())


@pytest.mark.parametrize("size", [5, 8, 12, 20])
def test_resizing_is_linear_interpolation(images, size):
    picture = torch.from_numpy(images(3))[:, None]
    camera = Camera((1, 8, 8), SaccadesOptions(size=size))
    want = torch.nn.functional.interpolate(
        picture.double(), (size, size), mode="bilinear", align_corners=False, antialias=size < 8
    )
    assert (camera._grey(picture) - want[:, 0]).abs().max() <= 0.5 + 1e-5
    assert camera.out_shape == (2, size + 6, size + 6)


def test_batches_are_those_of_the_pictures():
    still = load("digits", {}, root=NOWHERE)
    data = load("saccades:digits", {"size": 16}, root=NOWHERE)
    assert (data.in_shape, data.frames, data.classes) == ((2, 22, 22), 12, still.classes)
    assert data.name == "saccades:digits"
    order = torch.randperm(len(data.train))[:300]
    found = list(data.train.batches(order, 150, "cpu"))
    assert [tuple(x.shape) for x, _, _ in found] == [(150, 12, 2, 22, 22)] * 2
    camera = Camera(still.in_shape, SaccadesOptions(size=16))
    assert torch.equal(torch.cat([x for x, _, _ in found]), camera(still.train.images[order]))
    assert torch.equal(torch.cat([y for _, y, _ in found]), still.train.labels[order])
    for one, two in ((still.train, data.train), (still.validation, data.validation), (still.test, data.test)):
        assert torch.equal(one.labels, two.labels)
    everything, _, digest = load_for_scoring("saccades:digits", {"size": 16}, root=NOWHERE, split="all")
    assert (len(everything), digest) == (1797, data.fingerprint)


def test_statistics_are_of_train_alone():
    data = load("saccades:digits", {"frames": 3, "travel": 1}, root=NOWHERE)
    [(events, _, _)] = data.train.batches(torch.arange(len(data.train)), len(data.train), "cpu")
    torch.testing.assert_close(data.mean * 255, events.double().mean((0, 1, 3, 4)).float())
    assert data.std.tolist() == pytest.approx(
        [max(float(events[:, :, p].double().std()) / 255, 1 / 255) for p in (0, 1)], rel=1e-4
    )


def test_every_option_is_part_of_the_fingerprint():
    changed = [{}, {"frames": 6}, {"travel": 5}, {"size": 9}, {"threshold": 0.3}, {"mismatch": 0.0}, {"dark": 0.3}]
    digests = {open_source("saccades:digits", each, root=NOWHERE, download=False).fingerprint for each in changed}
    assert len(digests) == len(changed)


def test_streamed_pictures_and_sets_without_a_test_set(folder, monkeypatch):
    name = f"saccades:folder:{folder({'a': 30, 'b': 20}, (8, 8, 3))}"
    held = load(name, {}, root=NOWHERE)
    monkeypatch.setattr(loading, "BUDGET_BYTES", 0)
    streamed = load(name, {}, root=NOWHERE)
    assert isinstance(streamed.train.pictures, StreamedSplit)
    assert len(held.test) == 10
    for part in ("train", "validation", "test"):
        one, two = (getattr(data, part) for data in (held, streamed))
        pairs = zip(*(split.batches(torch.arange(len(split)), 7, "cpu") for split in (one, two)), strict=True)
        assert all(torch.equal(x, again) for (x, *_), (again, *_) in pairs)
    assert (held.fingerprint, held.mean.tolist()) == (streamed.fingerprint, streamed.mean.tolist())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_sees_the_same_events(images):
    pictures, camera = torch.from_numpy(images(8))[:, None], Camera((1, 8, 8), SaccadesOptions(size=11))
    assert torch.equal(camera(pictures), camera(pictures.cuda()).cpu())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("saccades", {}, "must be given with a path"),
        ("saccades:digit", {}, "got 'digit'. Did you mean digits?"),
        (
            "saccades:moving-shapes",
            {},
            "saccades:NAME must be the name of a dataset of still pictures; got moving-shapes",
        ),
        ("saccades:saccades:digits", {}, "of still pictures; got saccades:digits"),
        (
            "saccades:digits",
            {"frames": 40},
            r"--dataset.frames must be at most 6 \* --dataset.travel; got 40. Take at most 36",
        ),
        ("saccades:digits", {"threshold": 0.0}, "--dataset.threshold must be greater than 0"),
        ("saccades:digits", {"frames": 0}, "--dataset.frames must be at least 1"),
    ],
)
def test_bad_names_and_options(name, options, message):
    with pytest.raises(UserError, match=message):
        open_source(name, options, root=NOWHERE, download=False)


def test_pictures_of_two_channels():
    with pytest.raises(UserError, match="pictures for saccades must be of 1 or 3 channels; got 2"):
        Camera((2, 8, 8), SaccadesOptions())
