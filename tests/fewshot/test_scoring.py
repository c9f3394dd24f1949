"""Accuracies of episodes: against one at a time, against chance, and how often the interval holds the truth."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.nets.prototypes import nearest_mean
from engram.fewshot.episodes import scoring
from engram.fewshot.episodes.sampling import Pools, Shape, Shapes, draw
from engram.fewshot.episodes.scoring import interval, score_episodes


class Nearest(nn.Module):
    """The nearest class mean."""

    def from_support(self, queries, support, labels, ways):
        one = F.one_hot(labels, ways).float()
        means = one.transpose(1, 2) @ support / one.sum(1)[..., None]
        return -(queries[:, :, None] - means[:, None]).square().sum(-1)

    def fitted(self, support, labels, ways):
        raise NotImplementedError


class Shuffled(Nearest):
    """The same, of labels that are permuted inside every episode."""

    def from_support(self, queries, support, labels, ways):
        keys = torch.rand(len(labels), ways, generator=torch.Generator().manual_seed(0))
        return super().from_support(queries, support, keys.argsort(1).gather(1, labels), ways)


@pytest.fixture
def known():
    """Features of twelve overlapping classes of ten images, and their pools."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(12).repeat(10)
    table = torch.randn(12, 6, generator=random)[labels] + torch.randn(120, 6, generator=random)
    return table, Pools.of(MemorySplit(torch.zeros(120, 1, 1, 1, dtype=torch.uint8), labels))


def by_hand(table, drawn, episode):
    means = torch.stack([table[drawn.support[episode, way]].mean(0) for way in range(drawn.shape.ways)])
    right = [
        F.linear(table[place], *nearest_mean(means)).argmax().item() == way
        for way in range(drawn.shape.ways)
        for place in drawn.queries[episode, way].tolist()
    ]
    return sum(right) / len(right)


def test_accuracies_are_those_of_one_episode_at_a_time(known):
    table, pools = known
    shape = Shape(5, 2, 4)
    found = score_episodes(Nearest(), table, pools, shape, 40, seed=2)
    drawn = draw(pools, shape, range(40), seed=2)
    assert torch.allclose(found, torch.tensor([by_hand(table, drawn, episode) for episode in range(40)]))
    assert found.mean() > 0.5


def test_grouping_changes_nothing(known, monkeypatch):
    table, pools = known
    shapes = Shapes((3, 6), (1, 4), 4)
    whole = score_episodes(Nearest(), table, pools, shapes, 60, seed=2)
    parts = torch.cat([score_episodes(Nearest(), table, pools, shapes, 20, 2, first) for first in (0, 20, 40)])
    assert torch.equal(whole, parts)
    monkeypatch.setattr(scoring, "VALUES", 1)
    assert torch.equal(score_episodes(Nearest(), table, pools, shapes, 60, seed=2), whole)
    seen = []
    score_episodes(Nearest(), table, pools, shapes, 6, 2, told=lambda some, drawn, logits: seen.extend(some))
    assert sorted(seen) == [*range(6)]


def test_permuted_labels_come_to_chance(known):
    table, pools = known
    found = interval(score_episodes(Shuffled(), table, pools, Shape(5, 3, 5), 600, seed=0))
    assert abs(found.mean - 0.2) < 2 * found.half


def test_features_that_say_nothing_come_to_chance(known):
    _, pools = known
    table = torch.randn(120, 6, generator=torch.Generator().manual_seed(1))
    found = interval(score_episodes(Nearest(), table, pools, Shape(4, 2, 5), 600, seed=0))
    assert abs(found.mean - 0.25) < 0.03


def test_the_interval_is_the_textbooks():
    each = torch.tensor([0.2, 0.4, 0.9, 0.5])
    mean = 0.5
    deviation = math.sqrt(sum((value - mean) ** 2 for value in (0.2, 0.4, 0.9, 0.5)) / 3)
    assert interval(each) == pytest.approx((mean, 1.96 * deviation / 2), abs=1e-7)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    """Episodes of 25 queries whose difficulty varies: binomial around a beta, in 1,000 runs of 600."""
    random = torch.Generator().manual_seed(0)
    level = torch.distributions.Beta(8.0, 2.0)  # mean 0.8
    torch.manual_seed(0)
    right = torch.binomial(torch.full((1000, 600), 25.0), level.sample((1000, 600)), generator=random) / 25
    found = [interval(each) for each in right]
    held = sum(abs(each.mean - 0.8) <= each.half for each in found) / 1000
    assert 0.929 <= held <= 0.971  # three standard errors around 0.95


def test_a_head_without_a_support_set_is_refused(known):
    table, pools = known
    with pytest.raises(UserError, match="the head of episodes must be one that classifies by features of a support"):
        score_episodes(nn.Linear(6, 3), table, pools, Shape(3, 1, 1), 1, seed=0)
