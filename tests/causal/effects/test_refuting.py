"""Refuters: p against its definition, and what each of them must and must not find."""

import pytest
import torch
from scipy import stats

from engram.causal.effects import refuting
from engram.causal.effects.surroundings import Surroundings, in_front, partners

random = torch.Generator().manual_seed(0)


def test_p_is_small_where_what_should_come_out_is_far_from_what_does_and_never_above_one():
    drawn = torch.randn(2000, 3, generator=random, dtype=torch.float64) + torch.tensor([0.0, 1.0, 10.0])
    p = refuting.p_values(drawn, torch.zeros(3, dtype=torch.float64))
    assert p[0] > 0.9 and p[2] == pytest.approx(2 / 2001)
    assert float(p[1]) == pytest.approx(2 * stats.norm.sf(1), abs=0.03)
    assert p.max() <= 1 and p.min() > 0


def test_an_effect_on_one_class_whatever_the_picture_is_suspicious_and_one_on_the_right_class_is_not():
    count, classes = 300, 3
    targets = torch.tensor([0] * 240 + [1] * 30 + [2] * 30)
    balanced = torch.arange(count) % classes
    even = torch.zeros(count, classes).scatter_(1, balanced[:, None], 0.3)
    even = even - even.sum(1, keepdim=True) / classes
    frequent = torch.zeros(count, classes)
    frequent[:, 0], frequent[:, 1:] = 0.2, -0.1
    assert float(refuting.permuted_labels(even[None], balanced, 0).p) > 0.05
    assert float(refuting.permuted_labels(frequent[None], targets, 0).p) < 0.05
    assert float(refuting.permuted_labels(frequent[None], balanced, 0).p) > 0.05


def test_a_placebo_has_no_effect_however_much_it_spoils():
    """Both of its values spoil every picture; that one of them always spoils more is no property of either."""
    along = torch.stack([torch.full((4, 200), 0.2), torch.full((4, 200), 0.9)])
    found = refuting.placebo(along, 0)
    assert float(found.p) > 0.05 and abs(float(found.drawn.mean())) < 0.1
    assert torch.equal(found.drawn, refuting.placebo(along, 0).drawn)


def test_common_causes_by_lot_and_subsets_leave_an_estimate_as_it_is():
    differences = torch.randn(3, 200, generator=random) + torch.tensor([[0.0], [1.0], [-2.0]])
    for found in (refuting.random_common_cause(differences, 0), refuting.subsets(differences, 0)):
        torch.testing.assert_close(found.expected, differences.double().mean(1))
        torch.testing.assert_close(found.drawn.mean(0), found.expected, atol=0.02, rtol=0)
        assert found.p.min() > 0.5
    one = refuting.subsets(differences, 0)
    low, high = one.ends()
    assert bool((low < one.expected).all()) and bool((one.expected < high).all())


def test_objects_stand_before_other_pictures_backgrounds():
    images = torch.full((2, 1, 2, 2), 10, dtype=torch.uint8)
    images[1] = torch.tensor([[200, 1], [3, 2]])
    masks = torch.zeros(2, 2, 2, dtype=torch.bool)
    masks[0, 1, 1], masks[1, 0, 0] = True, True
    shown = in_front(images[:1], masks[:1], images[1:], masks[1:])
    assert shown[0, 0].tolist() == [[2, 1], [3, 10]]  # the mean of 1, 3 and 2 where its own object was
    assert partners(torch.tensor([0, 0, 1, 0])).tolist() == [2, 2, 3, 2]
    both = Surroundings(2)
    both.add(torch.tensor([[5.0, 0, 0], [0, 0, 5.0]]), torch.tensor([0, 1]), torch.tensor([1, 2]), slice(0, 2))
    assert both.share() == 0.5
