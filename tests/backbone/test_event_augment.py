from dataclasses import replace

import pytest
import torch

from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.hardware import Machine
from engram.backbone.nets.making import build
from engram.backbone.training import event_augment
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def counts():
    return torch.randint(0, 6, (200, 8, 2, 10, 12), generator=generator(7)).to(torch.uint8)


def test_event_drop_takes_nothing_a_span_an_area_or_some_at_random(counts):
    found = event_augment.event_drop(counts, 0.6, generator(1))
    assert found.dtype == torch.uint8 and bool((found <= counts).all())
    kinds = {"nothing": 0, "time": 0, "area": 0, "random": 0}
    for before, after in zip(counts, found, strict=True):
        changed = before != after
        if not bool(changed.any()):
            kinds["nothing"] += 1
            continue
        gone = bool((after[changed] == 0).all())
        frames = changed.any(dim=(1, 2, 3)).nonzero().flatten()
        whole_frames = gone and not bool(after[frames].any()) and bool(before[frames].any())
        rows, columns = (changed.any(dim=dims).nonzero().flatten() for dims in ((0, 1, 3), (0, 1, 2)))
        box = after[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if whole_frames:
            kinds["time"] += 1
            assert frames.tolist() == list(range(int(frames[0]), int(frames[-1]) + 1))
            assert len(frames) <= round(0.6 * 8)
        elif gone and not bool(box.any()):
            kinds["area"] += 1
            assert len(rows) <= 6 and len(columns) <= round(0.6 * 12)
        else:
            kinds["random"] += 1
            assert after.sum() >= 0.3 * before.sum()
    assert kinds["nothing"] >= 40  # small shares round to no frame at all
    assert all(count > 25 for count in kinds.values()), kinds


def test_events_at_random_go_in_the_share_that_is_drawn(counts):
    kept = torch.linspace(0, 1, 200)
    found = event_augment._thinned(counts, kept, generator(2))
    shares = found.flatten(1).sum(1) / counts.flatten(1).sum(1)
    assert bool((found <= counts).all()) and float((shares - kept).abs().max()) < 0.05
    assert not bool(found[0].any()) and torch.equal(found[-1], counts[-1])


def test_shift_in_time_moves_whole_frames_and_brings_none_in(counts):
    found = event_augment.shift_in_time(counts, 3, generator(3))
    shifts = torch.randint(-3, 4, (200,), generator=generator(3)).tolist()
    assert set(shifts) == set(range(-3, 4))
    for before, after, shift in zip(counts, found, shifts, strict=True):
        for frame in range(8):
            source = frame - shift
            wanted = before[source] if 0 <= source < 8 else torch.zeros_like(before[0])
            assert torch.equal(after[frame], wanted)


def test_later_is_later(counts):
    only_first = counts.clone()
    only_first[:, 1:] = 0
    found = event_augment.shift_in_time(only_first, 7, generator(4))
    places = found.flatten(2).any(2).nonzero()[:, 1]
    assert set(places.tolist()) == set(range(8))


def test_jitter_moves_a_share_to_the_neighbours_and_loses_nothing(counts):
    found = event_augment.jitter_in_time(counts, 0.4, generator(5))
    assert torch.equal(found.sum(1, dtype=torch.int64), counts.sum(1, dtype=torch.int64))
    one = torch.zeros_like(counts)
    one[:, 4] = counts[:, 4]
    spread = event_augment.jitter_in_time(one, 0.4, generator(6)).sum(dim=(0, 2, 3, 4), dtype=torch.int64)
    total = int(one.sum(dtype=torch.int64))
    assert spread[:3].sum() == 0 and spread[6:].sum() == 0
    shares = (spread[3:6] / total).tolist()
    assert shares == pytest.approx([0.2, 0.6, 0.2], abs=0.01)


def test_jitter_at_the_ends_stays_and_counts_stop_at_255():
    counts = torch.full((4, 3, 1, 2, 2), 255, dtype=torch.uint8)
    found = event_augment.jitter_in_time(counts, 1.0, generator(8))
    assert int(found.max()) == 255
    assert torch.equal(event_augment.jitter_in_time(counts[:, :1], 1.0, generator(8)), counts[:, :1])


def test_the_same_draws_for_the_same_seed(counts):
    options = TrainingOptions(event_drop=0.5, time_shift=2, time_jitter=0.3)
    first, again, other = (event_augment.augmented(counts, options, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert event_augment.augmented(counts, TrainingOptions(), generator(1)) is counts


@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ({"event_drop": 0.5}, "--event-drop"),
        ({"time_shift": 1}, "--time-shift"),
        ({"time_jitter": 0.1}, "--time-jitter"),
    ],
)
def test_pictures_have_no_events(trainer, option, flag):
    with pytest.raises(UserError, match=f"{flag} must be 0 for pictures"):
        trainer(**option)


@pytest.mark.parametrize("option", [{"event_drop": 0.9}, {"time_shift": 2}, {"time_jitter": 1.0}, {"affine": 0.3}])
def test_the_network_sees_other_events_and_raw_ones_stay(counts, plain_options, option):
    kept = counts.clone()
    model = build("lenet5", {"width": 0.5}, (2, 10, 12), 2, torch.tensor([0.1, 0.1]), torch.tensor([0.2, 0.2]))
    data = MemorySplit(counts, torch.arange(200) % 2)
    plain, changed = (
        Trainer(model, data, replace(plain_options, **given), Machine("cpu", "fp32")) for given in ({}, option)
    )
    seen = plain.augmented(counts, "x")
    assert torch.equal(seen, model.normalise(counts))
    assert not torch.equal(changed.augmented(counts, "x"), seen)
    assert torch.equal(changed.augmented(counts, "x"), changed.augmented(counts, "x"))
    assert torch.equal(kept, counts)


def test_recordings_have_no_noise_of_pictures_and_no_events_where_they_are_hidden(counts, plain_options):
    model = build("lenet5", {"width": 0.5}, (2, 10, 12), 2, torch.tensor([0.1, 0.1]), torch.tensor([0.2, 0.2]))
    many = counts + 1
    data, machine = MemorySplit(many, torch.arange(200) % 2), Machine("cpu", "fp32")
    found = Trainer(model, data, replace(plain_options, occlude=0.8), machine).augmented(many, "x")
    hidden = found == model.normalise(torch.zeros_like(many))
    assert 0.3 < hidden.float().mean() < 0.5
    assert torch.equal(hidden.any(1).any(1), hidden.all(1).all(1))
    with pytest.raises(UserError, match=r"--noise must be 0 for recordings, which are no pictures; got 0.1"):
        Trainer(model, data, replace(plain_options, noise=0.1), machine)


def test_frames_of_a_recording_are_warped_alike(counts, plain_options):
    model = build("lenet5", {"width": 0.5}, (2, 10, 12), 2, torch.tensor([0.1, 0.1]), torch.tensor([0.2, 0.2]))
    still = counts[:, :1].expand(-1, 3, -1, -1, -1).contiguous()
    options = replace(plain_options, affine=0.3, elastic=1.0, border="black")
    warped = Trainer(model, MemorySplit(still, torch.arange(200) % 2), options, Machine("cpu", "fp32")).augmented(
        still, "x"
    )
    assert torch.equal(warped[:, 0], warped[:, 1]) and torch.equal(warped[:, 0], warped[:, 2])
    assert not torch.equal(warped, model.normalise(still))
