import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from engram.backbone.data.splits import stratified

label_lists = st.lists(st.integers(0, 12), min_size=1, max_size=300)
fractions = st.floats(0, 0.999)


@given(label_lists, fractions, st.integers(0, 9))
def test_every_image_is_in_exactly_one_part(labels, fraction, salt):
    kept, held = stratified(torch.tensor(labels), fraction, salt)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist())
    assert held.tolist() == sorted(held.tolist())


@given(label_lists, fractions, st.integers(0, 9))
def test_classes_give_their_share_and_keep_an_image(labels, fraction, salt):
    labels = torch.tensor(labels)
    kept, held = stratified(labels, fraction, salt)
    counts = labels.bincount()
    given_up = labels[held].bincount(minlength=len(counts))
    assert ((given_up - counts * fraction).abs() <= 1 + 1e-4).all()
    assert (labels[kept].bincount(minlength=len(counts)) >= counts.clamp(max=1)).all()


@given(st.lists(st.integers(2, 40), min_size=1, max_size=8), st.floats(0, 0.5))
def test_the_whole_share_is_held_out(counts, fraction):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    _, held = stratified(labels, fraction, 1)
    assert len(held) == int(np.floor(len(labels) * fraction + 0.5))


def test_same_choice_whatever_the_random_state():
    labels = torch.arange(1000) % 7
    first = stratified(labels, 0.2, 1)[1]
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert torch.equal(stratified(labels, 0.2, 1)[1], first)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


def test_the_choice_never_changes():
    """Another choice would silently make every earlier result incomparable."""
    held = stratified(torch.arange(40) % 4, 0.25, 1)[1]
    assert held.tolist() == [0, 3, 6, 11, 12, 21, 26, 32, 33, 37]


def test_salts_choose_independently():
    labels = torch.zeros(1000, dtype=torch.int64)
    one, two = (set(stratified(labels, 0.2, salt)[1].tolist()) for salt in (1, 2))
    assert 15 < len(one & two) < 75  # 40 expected


def test_choice_is_spread_over_the_file():
    held = stratified(torch.zeros(10_000, dtype=torch.int64), 0.2, 1)[1]
    assert (torch.bincount(held // 1000, minlength=10) - 200).abs().max() < 60
