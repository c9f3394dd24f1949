"""What a buffer keeps, against the distributions its rules promise; and that it goes on after a save."""

import io
from collections import Counter

import pytest
import torch

from engram.backbone.seeding import generator
from engram.continual.replay.buffers import Balanced, Buffer, Reservoir, Rows, Turns, herd, quota


def streamed(rule, labels, batch):
    """The positions in ``labels`` that a rule keeps, by slot."""
    slots = {}
    for first in range(0, len(labels), batch):
        chosen = rule.choose(labels[first : first + batch])
        slots.update({slot: first + row for slot, row in chosen.items()})
    return slots


@pytest.mark.parametrize("batch", [1, 7])
def test_a_reservoir_keeps_every_image_with_the_same_probability(batch):
    counts, pairs, trials = torch.zeros(40), torch.zeros(40, 40), 400
    for seed in range(trials):
        kept = list(streamed(Reservoir(8, seed), [0] * 40, batch).values())
        assert len(set(kept)) == 8
        counts[kept] += 1
        pairs[tuple(torch.combinations(torch.tensor(sorted(kept))).T)] += 1
    expected = trials * 8 / 40
    chi = ((counts - expected) ** 2 / (expected * (1 - 8 / 40))).sum() * 39 / 40
    assert chi < 73  # the 99.9 % point for 39 degrees of freedom
    each = pairs[torch.triu(torch.ones(40, 40), 1).bool()]
    together = trials * (8 * 7) / (40 * 39)
    assert (each.mean() - together).abs() < 1e-3  # 8 different ones every time
    assert abs(each.var() / together - 1) < 0.2  # and no pair more often than chance


def test_a_batch_is_decided_as_image_by_image():
    """The same draws, one by one: the slot of image i is uniform below i, and a later image takes an earlier one's."""
    first = Reservoir(4, 0).choose([0] * 30)
    drawn = torch.rand(30, dtype=torch.float64, generator=generator(0, "keep", 0)).tolist()
    slots = {}
    for i, value in enumerate(drawn, 1):
        slot = i - 1 if i <= 4 else int(value * i)
        if slot < 4:
            slots[slot] = i - 1
    assert first == slots


def test_slots_fill_in_order_before_anything_is_replaced():
    rule = Reservoir(10, 3)
    assert rule.choose([0] * 6) == {i: i for i in range(6)}
    second = rule.choose([0] * 4)
    assert second == {6 + i: i for i in range(4)}


def test_balanced_shares_are_equal_whatever_the_stream_looks_like():
    labels = [0] * 300 + [1] * 30 + [2] * 100 + [3] * 3
    kept = streamed(Balanced(40, 1), labels, 16)
    counts = Counter(labels[position] for position in kept.values())
    assert counts[3] == 3 and sum(counts.values()) == 40
    assert max(counts.values()) - min(counts[c] for c in (0, 1, 2)) <= 1


def test_balanced_is_uniform_within_a_class():
    labels, trials, counts = [0, 1] * 25, 600, torch.zeros(50)
    for seed in range(trials):
        kept = list(streamed(Balanced(10, seed), labels, 8).values())
        counts[kept] += 1
    for each in (counts[0::2], counts[1::2]):
        expected = each.sum() / 25
        assert ((each - expected) ** 2 / (expected * 0.8)).sum() < 52.6  # 99.9 %, 24 degrees of freedom


def rows(first, count, logits=False):
    """Images whose every pixel is their number."""
    number = torch.arange(first, first + count)
    images = number.to(torch.uint8)[:, None, None, None].expand(count, 1, 2, 2).contiguous()
    return Rows(images, number % 3, number % 2, number[:, None].float().expand(count, 3) if logits else None)


@pytest.mark.parametrize("selection", ["reservoir", "balanced"])
def test_what_belongs_together_stays_together(selection):
    buffer = Buffer(12, (1, 2, 2), None, "cpu", 5, selection, logits=3)
    for first in range(0, 90, 9):
        batch = rows(first, 9, logits=True)
        buffer.add(batch, batch.labels.tolist())
    for kept in (buffer.content(), buffer.draw(8)):
        number = kept.images[:, 0, 0, 0].long()
        assert len(number.unique()) == len(number)
        assert torch.equal(kept.labels, number % 3) and torch.equal(kept.tasks, number % 2)
        assert torch.equal(kept.logits, number[:, None].float().expand(-1, 3))
    assert len(buffer) == 12 and len(buffer.draw(100).labels) == 12


def test_frames_of_recordings_are_kept_as_well():
    buffer = Buffer(2, (2, 3, 3), 5, "cpu", 0, "reservoir")
    images = torch.randint(255, (2, 5, 2, 3, 3), dtype=torch.uint8)
    buffer.add(Rows(images, torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long)), [0, 0])
    assert torch.equal(buffer.content().images, images)


def test_draws_are_uniform_without_repeats_and_each_its_own():
    buffer = Buffer(20, (1, 2, 2), None, "cpu", 0, "reservoir")
    buffer.add(rows(0, 20), [0] * 20)
    counts = torch.zeros(20)
    for _ in range(2000):
        drawn = buffer.draw(5).images[:, 0, 0, 0].long()
        assert len(drawn.unique()) == 5
        counts[drawn] += 1
    assert ((counts - 500) ** 2 / (500 * 0.75)).sum() * 19 / 20 < 43.8


@pytest.mark.parametrize("selection", ["reservoir", "balanced"])
def test_a_saved_buffer_goes_on_bit_for_bit(selection):
    ours = Buffer(10, (1, 2, 2), None, "cpu", 5, selection, logits=3)
    for first in range(0, 48, 8):
        batch = rows(first, 8, logits=True)
        ours.add(batch, batch.labels.tolist())
        ours.draw(3)
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    other = Buffer(10, (1, 2, 2), None, "cpu", 5, selection, logits=3)
    other.load_state_dict(torch.load(file, weights_only=True))
    for first in range(48, 120, 8):
        batch = rows(first, 8, logits=True)
        for buffer in (ours, other):
            buffer.add(batch, batch.labels.tolist())
        mine, theirs = ours.draw(4), other.draw(4)
        assert torch.equal(mine.images, theirs.images) and torch.equal(mine.logits, theirs.logits)
    assert torch.equal(ours.images, other.images) and ours.images is not other.images


def learned(seed, sizes, passes, capacity, selection="reservoir", once=True):
    """A buffer that has seen tasks of such sizes in so many passes. Image: number; logit: the pass."""
    buffer = Buffer(capacity, (1, 1, 1), None, "cpu", seed, selection, logits=1)
    turns = Turns(seed)
    for task, size in enumerate(sizes):
        for now in range(passes):
            for places in torch.randperm(size, generator=generator(seed, "order", 10 * task + now)).split(13):
                number, labels = 100 * task + places, places % 3
                logits, tasks = torch.full((len(places), 1), float(now)), torch.full_like(places, task)
                due = turns.due(task, size, passes, now, places) if once else None
                buffer.add(
                    Rows(number.to(torch.uint8)[:, None, None, None], labels, tasks, logits), labels.tolist(), due
                )
    return buffer.content()


def test_several_passes_keep_a_uniform_sample_of_different_images():
    """And what is kept with them is of every pass alike."""
    trials, counts, times = 150, torch.zeros(200), torch.zeros(3)
    for seed in range(trials):
        kept = learned(seed, (40, 25), 3, 15)
        number = kept.images.flatten().long()
        assert len(number.unique()) == 15 and torch.equal(kept.tasks, number // 100)
        counts[number] += 1
        times += kept.logits.flatten().long().bincount(minlength=3)
    counts, expected = counts[counts > 0], trials * 15 / 65
    assert len(counts) == 65
    chi = ((counts - expected) ** 2 / (expected * (1 - 15 / 65))).sum() * 64 / 65
    assert chi < 105  # 64 degrees of freedom, 99.9 %
    assert ((times - 750) ** 2 / 750).sum() < 13.8  # 2 degrees of freedom


@pytest.mark.parametrize("selection", ["reservoir", "balanced"])
def test_a_buffer_with_room_for_all_ends_with_each_image_once(selection):
    kept = learned(0, (46, 46), 10, 200, selection)
    assert sorted(kept.images.flatten().tolist()) == [*range(46), *range(100, 146)]
    copies = learned(0, (46, 46), 10, 200, selection, once=False)
    assert len(copies.images) == 200 and len(copies.images.unique()) <= 92


def test_an_image_has_one_turn_whatever_comes_with_it():
    places = torch.arange(50)
    turns = [Turns(3).due(1, 50, 4, now, places) for now in range(5)]
    assert (
        sorted(place for turn in turns for place in turn) == places.tolist() and not turns[4]
    )  # a fifth pass that ends early offers nothing
    assert min(map(len, turns[:4])) > 4
    for now in range(4):
        assert [int(p) for p in (20, 7, 33) if Turns(3).due(1, 50, 4, now, torch.tensor([p]))] == [
            p for p in (20, 7, 33) if p in turns[now]
        ]
    assert Turns(3).due(1, 50, 0, 0, places) == places.tolist()  # less than one pass
    assert Turns(3).due(2, 50, 4, 0, places) != turns[0] != Turns(4).due(1, 50, 4, 0, places)


def test_what_is_kept_shares_no_memory_with_the_batch():
    buffer, batch = Buffer(4, (1, 2, 2), None, "cpu", 0, "reservoir"), rows(1, 4)
    buffer.add(batch, [0] * 4)
    batch.images.zero_()
    assert buffer.content().images.min() == 1


def test_herding_is_the_greedy_choice_of_the_paper():
    features = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    phi = torch.nn.functional.normalize(features.double(), dim=1)
    chosen: list[int] = []
    for k in range(1, 13):
        costs = [
            float("inf") if x in chosen else float((phi.mean(0) - phi[[*chosen, x]].sum(0) / k).norm())
            for x in range(30)
        ]
        chosen.append(min(range(30), key=costs.__getitem__))
    assert herd(features, 12).tolist() == chosen
    assert sorted(herd(features, 99).tolist()) == list(range(30))


def test_herded_means_follow_the_class_mean_better_than_chance():
    features = torch.randn(200, 8, generator=torch.Generator().manual_seed(1)) + 1
    phi = torch.nn.functional.normalize(features, dim=1)
    errors = [(phi[torch.randperm(200)[:10]].mean(0) - phi.mean(0)).norm() for _ in range(50)]
    assert (phi[herd(features, 10)].mean(0) - phi.mean(0)).norm() < min(errors)


def test_shares_fill_the_buffer_and_only_shrink():
    for capacity in (3, 10, 41):
        for groups in range(1, 12):
            shares = [quota(capacity, groups, index) for index in range(groups)]
            assert sum(shares) == capacity
            assert all(quota(capacity, groups + 1, index) <= share for index, share in enumerate(shares))
