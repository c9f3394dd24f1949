"""The claim is that nothing but the order of frames tells the classes apart; most tests here are its proof."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engram.backbone.data.event_options import MovingShapesOptions
from engram.backbone.data.load import load, open_source
from engram.backbone.data.moving_shapes import CLASSES, DIRECTIONS, ORDERS, draw, open_moving_shapes, render
from engram.backbone.errors import UserError

NOWHERE = Path("nowhere")
CHANCE = 1 / len(CLASSES)


def opened(budget=2**30, **options):
    return open_moving_shapes(None, MovingShapesOptions(**options), root=NOWHERE, download=False, budget_bytes=budget)


@pytest.fixture(scope="module")
def natural():
    return opened(samples=1200, size=12)


def shown(label, count=60, first=None, **options):
    """The same scenes as recordings of one class."""
    o = MovingShapesOptions(**options)
    scenes = draw(count, o.size, np.random.default_rng(0))
    if first is not None:
        scenes = replace(scenes, first=torch.full((count,), first))
    return render(scenes, torch.full((count,), label), o)


def bags(frames):
    """The frames of each recording without their order."""
    return [sorted(frame.numpy().tobytes() for frame in recording) for recording in frames]


@pytest.mark.parametrize(
    "options", [{}, {"stroke": 4}, {"frames": 12, "stroke": 1}, {"size": 23, "stroke": 3, "frames": 24}]
)
def test_every_class_shows_the_same_frames_in_another_order(options):
    """For each scene, not only on average: so an order-blind score has one distribution for all classes."""
    recordings = [shown(label, **options) for label in range(len(CLASSES))]
    for one in recordings[1:]:
        assert bags(one) == bags(recordings[0])
    for label, one in enumerate(recordings):
        for other in recordings[:label]:
            assert (one != other).flatten(1).any(1).all()


def test_at_every_time_step_all_classes_show_the_same_frames():
    """Over the four equally likely beginnings, the frames at one time step are the same ones in every class."""
    steps = []
    for label in range(len(CLASSES)):
        begun = torch.stack([shown(label, first=first) for first in range(len(DIRECTIONS))], 2)  # [N, T, first, ...]
        steps.append([bags(begun[:, step]) for step in range(begun.shape[1])])
    assert all(step == steps[0] for step in steps[1:])


def test_orders_are_all_cyclic_orders_and_beginnings_do_not_mix_them():
    turned = {tuple(np.roll(order, -first).tolist()): label for label, order in enumerate(ORDERS) for first in range(4)}
    assert len(turned) == 24
    assert len(set(CLASSES)) == len(ORDERS) == 6


def test_motion_goes_where_the_class_says():
    """The centre of what gets brighter lies, from the centre of what gets darker, in the direction of motion."""
    o = MovingShapesOptions(size=32, stroke=2)
    scenes = draw(12, o.size, np.random.default_rng(0))
    scenes = replace(scenes, y=torch.full((12,), 16), x=torch.full((12,), 16))  # away from the seam
    for label, order in enumerate(ORDERS):
        frames = (render(scenes, torch.full((12,), label), o) > 0).double()
        place = torch.arange(32, dtype=torch.float64)
        weight = frames.sum((3, 4))
        centre = torch.stack([(frames.sum(4) * place).sum(3), (frames.sum(3) * place).sum(3)], 3) / weight[..., None]
        moved = centre[:, :, 1] - centre[:, :, 0]
        for step in range(o.frames):
            number = (scenes.first + step // 2) % 4
            want = torch.tensor(DIRECTIONS, dtype=torch.float64)[torch.tensor(order)[number]]
            torch.testing.assert_close(torch.nn.functional.normalize(moved[:, step]), want)


def test_a_stroke_returns_through_its_place():
    """Summed up, brighter minus darker over all four strokes vanishes when strokes have a middle frame."""
    frames = shown(0, count=30, stroke=2).int()
    assert not (frames[:, :8, 1] - frames[:, :8, 0]).sum(1).any()


def test_values_and_shapes(natural):
    assert natural.train.images.shape == (1200, 16, 2, 12, 12)
    assert len(natural.test) == 300
    assert natural.train.images.dtype == torch.uint8
    assert int(natural.train.images.max()) == 3
    assert natural.train.images.flatten(2).any(2).all()  # no frame is empty
    appeared = (natural.train.images > 0).sum((3, 4))
    assert torch.equal(appeared[:, :, 0], appeared[:, :, 1])
    assert natural.train.labels.bincount().tolist() == [200] * 6
    seen = {recording.numpy().tobytes() for recording in natural.train.images}
    assert not any(recording.numpy().tobytes() in seen for recording in natural.test.images)


def nearest(train, test, count=5):
    """Accuracy of the nearest neighbours, by squared distance."""
    one, two = test[0].flatten(1).float(), train[0].flatten(1).float()
    close = torch.cdist(one, two).topk(count, largest=False).indices
    return (train[1][close].mode(1).values == test[1]).double().mean().item()


def linear(train, test):
    """Accuracy of ridge regression on the one-hot classes."""
    x = train[0].flatten(1).double()
    centre = x.mean(0)
    x = x - centre
    solved = torch.linalg.solve(
        x.T @ x + 10 * torch.eye(x.shape[1]), x.T @ (torch.eye(6, dtype=x.dtype)[train[1]] - CHANCE)
    )
    return (((test[0].flatten(1).double() - centre) @ solved).argmax(1) == test[1]).double().mean().item()


@pytest.mark.parametrize("step", [0, 7, 15])
def test_a_frame_is_at_chance(natural, step):
    parts = [(split.images[:, step], split.labels) for split in (natural.train, natural.test)]
    for classifier in (nearest, linear):
        assert abs(classifier(*parts) - CHANCE) < 0.07  # three standard deviations of 300 guesses


def moves(images):
    """The direction of each frame, ``[N, T] int64``: from what got darker to what got brighter, on the torus."""
    waves = torch.fft.fft2((images > 0).double())
    moved = [-(waves[:, :, 1, y, x] * waves[:, :, 0, y, x].conj()).angle() for y, x in ((1, 0), (0, 1))]
    return torch.stack([y * moved[0] + x * moved[1] for y, x in DIRECTIONS]).argmax(0)


@pytest.mark.parametrize("order", ["natural", "shuffled"])
def test_only_the_natural_order_tells_the_classes(order):
    """Which direction comes after which, counted: a memory of one stroke is enough, and without order it is useless."""
    source = opened(samples=1200, order=order, stroke=1)
    parts = []
    for split in (source.train, source.test):
        seen = torch.nn.functional.one_hot(moves(split.images), 4).float()
        parts.append((torch.einsum("nta,ntb->nab", seen[:, :-1], seen[:, 1:]), split.labels))
    accuracy = linear(*parts)
    assert accuracy > 0.9 if order == "natural" else abs(accuracy - CHANCE) < 0.07


def test_shuffling_keeps_the_frames(natural):
    shuffled = opened(samples=1200, size=12, order="shuffled")
    assert torch.equal(shuffled.train.labels, natural.train.labels)
    assert bags(shuffled.train.images[:50]) == bags(natural.train.images[:50])
    assert (shuffled.train.images != natural.train.images).flatten(1).any(1).all()
    assert shuffled.fingerprint != natural.fingerprint


def test_the_same_for_the_same_options_and_seed_alone(natural):
    torch.manual_seed(1)
    assert opened(samples=1200, size=12).fingerprint == natural.fingerprint
    assert opened(samples=1200, size=12, seed=1).fingerprint != natural.fingerprint


def test_through_the_registry():
    data = load("moving-shapes", {"samples": 60, "size": 8, "frames": 8}, root=NOWHERE)
    assert (data.in_shape, data.frames, data.classes) == ((2, 8, 8), 8, CLASSES)
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 20}, r"--dataset.frames must be a multiple of 8, 4 \* --dataset.stroke; got 20. Take 16."),
        ({"frames": 3, "stroke": 1}, "a multiple of 4, .*; got 3. Take 4."),
        ({"samples": 10**9}, "moving-shapes must be at most 4.0 GiB; got .* GiB. Ask for fewer"),
        ({"order": "random"}, "--dataset.order must be one of natural, shuffled"),
        ({"samples": 5}, "--dataset.samples must be at least 6"),
        ({"size": 7}, "--dataset.size must be at least 8"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        open_source("moving-shapes", options, root=NOWHERE, download=False)
