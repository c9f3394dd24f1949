"""Which images an episode shows: a pure function of the data, a seed and the episode's number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.columns import numbered
from engram.backbone.data.sets import Split
from engram.backbone.errors import UserError, must
from engram.backbone.seeding import derive

_MOST = 10  # classes that are named
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_Numbers = np.ndarray


@dataclass(frozen=True)
class Shape:
    """The size of an episode: N classes, K labelled images of each and Q others to classify."""

    ways: int
    shots: int
    queries: int

    def __str__(self) -> str:
        return f"{self.ways}-way {self.shots}-shot"


@dataclass(frozen=True)
class Shapes:
    """Sizes between which those of episodes vary, both ends included: each episode's is drawn by its number."""

    ways: tuple[int, int]
    shots: tuple[int, int]
    queries: int

    @property
    def largest(self) -> Shape:
        return Shape(self.ways[1], self.shots[1], self.queries)

    def groups(self, numbers: Sequence[int], seed: int) -> dict[Shape, list[int]]:
        """The given episodes by their size.

        >>> Shapes((5, 5), (1, 2), 15).groups(range(4), seed=0)
        {Shape(ways=5, shots=1, queries=15): [0, 2], Shape(ways=5, shots=2, queries=15): [1, 3]}
        """
        drawn = _scrambled(_streams(numbers, derive(seed, "sizes of episodes"))[:, None], 2)
        ways, shots = (_between(drawn[:, i], ends).tolist() for i, ends in enumerate((self.ways, self.shots)))
        found: dict[Shape, list[int]] = defaultdict(list)
        for number, some, each in zip(numbers, ways, shots, strict=True):
            found[Shape(some, each, self.queries)].append(number)
        return dict(sorted(found.items(), key=lambda item: (item[0].ways, item[0].shots)))


@dataclass(frozen=True, eq=False)
class Pools:
    """The images of every class of a split, from which episodes are drawn.

    Attributes:
        labels: [C] int64, the classes' labels in the split, ascending.
        members: [C, M] int64, positions of their images; -1 where a class has fewer than M.
        counts: [C] int64, how many images they have.
        writers: [C, M] int64, who drew an image, numbered from 0 within its class; None where that is not known, or
            nobody drew a class twice: then images of one class are by different writers already.
        groups: [C] int64, the group of each class, numbered from 0, where an episode shows classes of one group alone.
    """

    labels: Tensor
    members: Tensor
    counts: Tensor
    writers: Tensor | None = None
    groups: Tensor | None = None

    @classmethod
    def of(cls, split: Split, within: Sequence[str] = ()) -> Pools:
        """Those of a split; its column ``writer``, where there is one, keeps the writers of support and queries apart.

        Classes whose images have the same values in the columns ``within`` are a group (`groups`).

        >>> from engram.backbone.data.sets import MemorySplit
        >>> Pools.of(MemorySplit(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.tensor([4, 7, 4, 7, 4]))).members
        tensor([[ 0,  2,  4],
                [ 1,  3, -1]])
        """
        labels, inverse, counts = split.labels.unique(return_inverse=True, return_counts=True)
        order = inverse.argsort(stable=True)
        classes = inverse[order]
        rank = torch.arange(len(order)) - (counts.cumsum(0) - counts)[classes]
        members = torch.full((len(labels), int(counts.max()) if len(counts) else 0), -1)
        members[classes, rank] = order
        groups = _groups(split, members[:, 0], within) if within else None
        if "writer" not in split.columns:
            return cls(labels, members, counts, groups=groups)
        who = numbered(split.columns["writer"])[0]
        writers = torch.full_like(members, -1)
        for row, count in zip(range(len(labels)), counts.tolist(), strict=True):
            writers[row, :count] = who[members[row, :count]].unique(return_inverse=True)[1]
        once = bool((writers.max(1).values + 1 == counts).all())
        return cls(labels, members, counts, None if once else writers, groups)

    @property
    def most(self) -> int:
        """How many classes an episode can have."""
        return len(self.labels) if self.groups is None else int(self.groups.bincount().max())

    def spare(self) -> Tensor:
        """How many images of each class an episode cannot count on, [C] int64.

        Where a writer drew a class several times, queries may leave all his images but one unused.
        """
        if self.writers is None:
            return torch.zeros_like(self.counts)
        each = torch.zeros(len(self.counts), int(self.writers.max()) + 2, dtype=torch.int64)
        each.scatter_add_(1, self.writers + 1, torch.ones_like(self.writers))
        return each[:, 1:].max(1).values - 1

    def problems(self, shape: Shape, part: str, classes: Sequence[object], prefix: str = "") -> list[UserError]:
        """Why episodes of this size cannot be drawn.

        Args:
            shape: the largest that is wanted.
            part: what the split is called, such as ``test``.
            classes: names by label.
            prefix: what the names of their options begin with, such as ``train-``.
        """
        found: list[UserError] = []
        if shape.ways > len(self.labels):
            step = f"Lower --{prefix}ways, or take a set of more classes."
            found.append(
                must(f"the ways of {part} episodes", f"at most its {len(self.labels)} classes", shape.ways, step)
            )
        elif shape.ways > self.most:
            step = f"Lower --{prefix}ways, or leave --within out."
            rule = f"at most {self.most}, the classes of one group"
            found.append(must(f"the ways of {part} episodes", rule, shape.ways, step))
        needed = shape.shots + shape.queries + self.spare()
        short = (self.counts < needed).nonzero().squeeze(1).tolist()
        if short:
            each = [f"{classes[int(self.labels[row])]!r} has {int(self.counts[row])}" for row in short[:_MOST]]
            more = f" and {len(short) - _MOST} more" if len(short) > _MOST else ""
            rule = f"of at least {int(needed[short].max())} images ({shape.shots} shots and {shape.queries} queries)"
            if int(needed[short].max()) > shape.shots + shape.queries:
                rule = f"{rule[:-1]}, by different writers)"
            step = f"Lower --{prefix}shots or --{prefix}queries, or add images."
            found.append(must(f"every class of the {part} part", rule, ", ".join(each) + more, step))
        return found


@dataclass(frozen=True, eq=False)
class Drawn:
    """E episodes of one size.

    Attributes:
        classes: [E, N] int64, rows of `Pools.labels`, no class twice in an episode.
        support: [E, N, K] int64, positions in the split.
        queries: [E, N, Q] int64, positions in the split, none of them in ``support``.
    """

    classes: Tensor
    support: Tensor
    queries: Tensor

    @property
    def shape(self) -> Shape:
        return Shape(self.classes.shape[1], self.support.shape[2], self.queries.shape[2])

    def __len__(self) -> int:
        return len(self.classes)

    def labels(self) -> tuple[Tensor, Tensor]:
        """Class of every image of the flattened support set, [E, N K], and of the queries, [E, N Q], in [0, N)."""
        ways = torch.arange(self.shape.ways)
        each = (ways.repeat_interleave(count) for count in (self.shape.shots, self.shape.queries))
        support, queries = (labels.expand(len(self), -1) for labels in each)
        return support, queries


def draw(pools: Pools, shape: Shape, numbers: Sequence[int], seed: int) -> Drawn:
    """The episodes of the given numbers. One is the same alone and among any others.

    Where classes have groups, each class of a group that is large enough is as likely to choose the episode's.

    Episodes of more shots are those of fewer with images added: classes and queries stay. Those of more ways are
    those of fewer with classes added. Queries of a class are by writers that drew none of its support images, where
    writers are known.

    Args:
        pools: of the split.
        shape: the size of all of them.
        numbers: of the episodes, 0 or more.
        seed: whose episodes.

    Raises:
        UserError: a class has too few images, or there are too few classes.
    """
    if problems := pools.problems(shape, "drawn", range(int(pools.labels.max()) + 1)):
        raise UserError("\n".join(map(str, problems)))
    states = _streams(numbers, derive(seed, "episodes"))
    keys = _scrambled(states[:, None], len(pools.labels))
    if pools.groups is not None:
        keys[_others(pools.groups.numpy(), states, shape.ways)] = np.iinfo(np.uint64).max
    chosen = np.argpartition(keys, shape.ways - 1, axis=1)[:, : shape.ways]
    own = np.take_along_axis(keys, chosen, 1)
    order = own.argsort(1)
    chosen, own = np.take_along_axis(chosen, order, 1), np.take_along_axis(own, order, 1)
    members = pools.members.numpy()[chosen]
    images = _scrambled(_mixed(own)[..., None], members.shape[2])
    images[members < 0] = np.iinfo(np.uint64).max  # no image: the last ones
    if pools.writers is None:
        ranked = images.argsort(-1)
        queries, support = np.split(ranked[..., : shape.queries + shape.shots], [shape.queries], axis=-1)
    else:
        queries, support = _apart(images, pools.writers.numpy()[chosen], own, shape)
    found = (torch.from_numpy(np.take_along_axis(members, rows, -1)) for rows in (support, queries))
    return Drawn(torch.from_numpy(chosen.astype(np.int64)), *found)


def _groups(split: Split, first: Tensor, within: Sequence[str]) -> Tensor:
    """[C] int64, the group of each class, whose first image is ``first: [C]``, by the values of columns."""
    each = torch.stack([numbered(split.columns[name])[0][first] for name in within], 1)
    return each.unique(dim=0, return_inverse=True)[1]


def _others(groups: _Numbers, states: _Numbers, ways: int) -> _Numbers:
    """Which classes are in another group than an episode's, [E, C] bool; its state is one of ``states: [E]``."""
    large = np.flatnonzero(np.bincount(groups)[groups] >= ways)
    chosen = large[(_mixed(states ^ _GOLDEN) % np.uint64(len(large))).astype(np.int64)]
    return groups != groups[chosen][:, None]


def _apart(images: _Numbers, writers: _Numbers, own: _Numbers, shape: Shape) -> tuple[_Numbers, _Numbers]:
    """Places of queries [E, N, Q] and support [E, N, K] in the pools of their classes, by different writers.

    Writers are taken in a random order until they drew enough for the queries; the support is of the others.

    Args:
        images: [E, N, M] uint64, a random key for every image; the largest where there is none.
        writers: [E, N, M], the writer of each; -1 where there is no image.
        own: [E, N] uint64, a random key for every class of an episode.
        shape: their size.
    """
    turns = _scrambled(_mixed(own ^ _GOLDEN)[..., None], int(writers.max()) + 1)
    turn = np.take_along_axis(turns, np.maximum(writers, 0), -1)
    turn[writers < 0] = np.iinfo(np.uint64).max
    ranked = np.lexsort((images, turn), axis=-1)
    queries = ranked[..., : shape.queries]
    last = np.take_along_axis(turn, queries[..., -1:], -1)
    others = np.where(turn > last, images, np.iinfo(np.uint64).max)
    return queries, others.argsort(-1)[..., : shape.shots]


def _streams(numbers: Sequence[int], seed: int) -> _Numbers:
    """[E] uint64, a state for each episode."""
    counted = np.asarray(numbers, np.uint64)
    return _mixed(np.uint64(seed) + counted * _GOLDEN)


def _scrambled(states: _Numbers, count: int) -> _Numbers:
    """states: [..., 1] uint64 -> [..., count] uint64, random numbers that follow from each."""
    return _mixed(states + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)


def _mixed(state: _Numbers) -> _Numbers:
    """Another number for each, in which every bit depends on all bits.

    Source: splitmix64, Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators", figure 17.
    """
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _between(drawn: _Numbers, ends: tuple[int, int]) -> _Numbers:
    """Random numbers as whole ones from the first end to the last."""
    return ends[0] + (drawn % np.uint64(ends[1] - ends[0] + 1)).astype(np.int64)
