"""Episodes: disjoint, the same alone and among others, by different writers, drawn evenly."""

from collections import Counter

import pytest
import torch

from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.fewshot.episodes.sampling import Pools, Shape, Shapes, draw


def split_of(labels, writers=None):
    columns = {} if writers is None else {"writer": torch.as_tensor(writers)}
    return MemorySplit(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), torch.as_tensor(labels), columns)


@pytest.fixture
def pools():
    """Twelve classes with labels 0, 3, 6, ... of 8 to 11 images each, in a random order."""
    labels = torch.cat([torch.full((8 + k % 4,), 3 * k) for k in range(12)])
    return Pools.of(split_of(labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]))


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("classes", "support", "queries"))


def test_classes_and_images_stand_once_and_belong_together(pools):
    drawn = draw(pools, Shape(5, 3, 4), range(200), seed=1)
    assert drawn.classes.shape == (200, 5) and drawn.support.shape == (200, 5, 3) and drawn.queries.shape == (200, 5, 4)
    members = [set(row[row >= 0].tolist()) for row in pools.members]
    for classes, support, queries in zip(drawn.classes, drawn.support, drawn.queries, strict=True):
        assert len(classes.unique()) == 5
        shown = torch.cat((support.flatten(), queries.flatten())).tolist()
        assert len({*shown}) == len(shown) == 5 * 7
        for row, images in zip(classes.tolist(), torch.cat((support, queries), 1).tolist(), strict=True):
            assert {*images} <= members[row]


def test_an_episode_is_the_same_alone_and_in_a_thousand(pools):
    shape = Shape(4, 2, 3)
    many = draw(pools, shape, range(1000), seed=7)
    alone = draw(pools, shape, [623], seed=7)
    assert torch.equal(alone.support[0], many.support[623]) and torch.equal(alone.queries[0], many.queries[623])
    assert same(draw(pools, shape, [5, 623], seed=7), draw(pools, shape, [5, 623], seed=7))
    assert not same(draw(pools, shape, [623], seed=8), alone)
    assert not torch.equal(many.support[0], many.support[1])


def test_more_shots_and_more_ways_add_to_an_episode(pools):
    small, large = (draw(pools, shape, range(50), seed=3) for shape in (Shape(3, 1, 3), Shape(6, 4, 3)))
    assert torch.equal(small.classes, large.classes[:, :3])
    assert torch.equal(small.queries, large.queries[:, :3])
    assert torch.equal(small.support, large.support[:, :3, :1])


def test_classes_and_images_come_equally_often(pools):
    """Counts of 6,000 draws against what chance allows: chi-squared with 11 and 7 degrees, one in 10,000."""
    drawn = draw(pools, Shape(3, 2, 2), range(2000), seed=0)
    expected = 2000 * 3 / 12
    counts = drawn.classes.flatten().bincount(minlength=12).float()
    assert float((counts - expected).square().sum() / expected) < 37.4
    assert int(pools.counts[0]) == 8
    of_first = Counter(drawn.support[drawn.classes == 0].flatten().tolist())
    times = torch.tensor([float(of_first[place]) for place in pools.members[0, :8].tolist()])
    assert float((times - times.mean()).square().sum() / times.mean()) < 29.9


def test_sizes_vary_by_the_number_of_an_episode():
    shapes = Shapes((5, 8), (1, 3), 4)
    groups = shapes.groups(range(600), seed=0)
    assert {shape.ways for shape in groups} == {5, 6, 7, 8} and {shape.shots for shape in groups} == {1, 2, 3}
    assert sorted(number for members in groups.values() for number in members) == [*range(600)]
    assert all(30 <= len(members) <= 70 for members in groups.values())  # 50 each
    assert all(number in groups[shape] for shape, (number,) in shapes.groups([417], seed=0).items())
    assert shapes.largest == Shape(8, 3, 4)


def test_queries_are_by_other_writers_than_the_support():
    """Three to five writers of a class, of one to four drawings each; the same writers elsewhere have other numbers."""
    drawings = [(label, 10 * label + writer) for label in range(6) for writer in range(3 + label % 3)]
    drawings = [each for place, each in enumerate(drawings) for _ in range(1 + place % 4)]
    labels, writers = map(torch.tensor, zip(*drawings, strict=True))
    pools = Pools.of(split_of(labels, writers))
    assert pools.spare().tolist() == [
        max(Counter(writers[labels == label].tolist()).values()) - 1 for label in range(6)
    ]
    drawn = draw(pools, Shape(4, 2, 2), range(300), seed=0)
    for support, queries in zip(drawn.support.flatten(0, 1), drawn.queries.flatten(0, 1), strict=True):
        assert not {*writers[support].tolist()} & {*writers[queries].tolist()}
        assert not {*support.tolist()} & {*queries.tolist()}
    assert len(drawn.support.unique()) == len(labels)  # every image has its turn


def test_writers_who_drew_a_class_once_need_no_care():
    labels = torch.arange(3).repeat_interleave(5)
    pools = Pools.of(split_of(labels, torch.arange(5).repeat(3)))
    assert pools.writers is None and pools.spare().tolist() == [0, 0, 0]


def test_what_cannot_be_drawn_is_named():
    pools = Pools.of(split_of([0, 0, 0, 1, 1, 2, 2, 2], None))
    lines = [str(each) for each in pools.problems(Shape(4, 1, 2), "test", ("ape", "bee", "cat"))]
    assert lines == [
        "the ways of test episodes must be at most its 3 classes; got 4. Lower --ways, or take a set of more classes.",
        "every class of the test part must be of at least 3 images (1 shots and 2 queries); got 'bee' has 2. "
        "Lower --shots or --queries, or add images.",
    ]
    with pytest.raises(UserError, match="at most its 3 classes"):
        draw(pools, Shape(4, 1, 1), [0], 0)
    twice = Pools.of(split_of([0] * 4 + [1] * 4, [0, 0, 1, 2, 0, 1, 2, 3]))
    (line,) = twice.problems(Shape(2, 1, 3), "train", ("ape", "bee"))
    assert "of at least 5 images (1 shots and 3 queries, by different writers); got 'ape' has 4" in str(line)


def test_classes_of_an_episode_share_a_value_of_a_column():
    labels = torch.arange(12).repeat_interleave(6)
    columns = {"alphabet": tuple("abc"[label % 3] for label in labels.tolist()), "turn": labels // 6}
    split = MemorySplit(torch.zeros(72, 1, 2, 2, dtype=torch.uint8), labels, columns)
    pools = Pools.of(split, ["alphabet"])
    drawn = draw(pools, Shape(3, 1, 2), range(300), 0)
    found = drawn.classes % 3
    assert (found == found[:, :1]).all()
    assert found[:, 0].bincount().min() > 70  # three alphabets of four classes each
    assert all(len(set(row)) == 3 for row in drawn.classes.tolist())
    alone = draw(pools, Shape(3, 1, 2), [17], 0)
    assert torch.equal(alone.support[0], drawn.support[17]) and torch.equal(alone.queries[0], drawn.queries[17])
    assert len(Pools.of(split, ["alphabet", "turn"]).groups.unique()) == 6
    with pytest.raises(
        UserError, match="the ways of drawn episodes must be at most 4, the classes of one group; got 5"
    ):
        draw(pools, Shape(5, 1, 2), [0], 0)
