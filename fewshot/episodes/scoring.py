"""How well a head classifies the queries of many episodes, and how sure that figure is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engram.backbone.contract import AdaptingHead, SupportHead
from engram.backbone.data.sets import Split
from engram.backbone.errors import must
from engram.backbone.nets.classifier import Classifier
from engram.fewshot.episodes.sampling import Drawn, Pools, Shape, Shapes, draw

VALUES = 2**22
"""Features of episodes that are classified at once; more fit no cache."""
PIXELS = 2**22
"""Pixels of episodes whose network is adapted at once."""
_Z = 1.96  # 95 %


class Interval(NamedTuple):
    """The mean of episodes' accuracies and half the width of its 95 % interval, both as fractions."""

    mean: float
    half: float


def interval(accuracies: Tensor) -> Interval:
    """accuracies: [E] -> their mean and 1.96 s / sqrt(E), with their sample deviation s; nan for a single one.

    >>> interval(torch.tensor([0.5, 1.0, 0.75, 0.75])).mean
    0.75
    """
    each = accuracies.double()
    return Interval(float(each.mean()), float(_Z * each.std() / math.sqrt(len(each))))


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images of a split as a network sees them, for heads that adapt it.

    Attributes:
        model: on ``device``.
        split: the images.
        device: where to compute.
    """

    model: Classifier
    split: Split
    device: str

    def __call__(self, positions: Tensor) -> Tensor:
        """positions: [E, S] in the split -> normalised images [E, S, C, H, W] (event frames [E, S, T, C, H, W])."""
        flat = positions.flatten()
        (images,) = (found for found, _, _ in self.split.batches(flat, len(flat), self.device))
        return self.model.normalise(images).unflatten(0, positions.shape)


Source = Tensor | Pictures
"""What episodes are classified from: the features of a split [N, F], or for an `AdaptingHead` its images."""


def episode_logits(head: nn.Module, source: Source, drawn: Drawn) -> Tensor:
    """Logits of the queries of E episodes, [E, N Q, N], class after class as they lie in ``drawn``.

    Raises:
        UserError: the head classifies by no support set, or adapts a network and is given features.
    """
    support, queries = drawn.support.flatten(1), drawn.queries.flatten(1)
    labels, ways = drawn.labels()[0], drawn.shape.ways
    if isinstance(source, Pictures):
        if not isinstance(head, AdaptingHead):
            raise must(
                "a head that is given images", "one that adapts a network", type(head).__name__, "Give features."
            )
        labels = labels.to(source.device, non_blocking=True)
        return head.from_images(source.model.backbone, source(queries), source(support), labels, ways)
    if not isinstance(head, SupportHead) or isinstance(head, AdaptingHead):
        rule = "one that classifies by features of a support set"
        raise must("the head of episodes", rule, type(head).__name__, "See: engram list heads")
    labels = labels.to(source.device, non_blocking=True)
    asked, known = (_rows(source, positions) for positions in (queries, support))
    return head.from_support(asked, known, labels, ways)


def _rows(table: Tensor, positions: Tensor) -> Tensor:
    """table: [N, F], positions: [E, S] -> [E, S, F]."""
    flat = positions.flatten().to(table.device, non_blocking=True)
    return table.index_select(0, flat).unflatten(0, positions.shape)


@dataclass(frozen=True)
class Episodes:
    """Which episodes: of a split's classes, of sizes that may vary, of a seed."""

    pools: Pools
    shapes: Shapes
    seed: int

    @classmethod
    def of(cls, pools: Pools, shape: Shape | Shapes, seed: int) -> Episodes:
        """Those of one size, or of several."""
        if isinstance(shape, Shape):
            shape = Shapes((shape.ways, shape.ways), (shape.shots, shape.shots), shape.queries)
        return cls(pools, shape, seed)

    def in_groups(self, numbers: Sequence[int], each: Callable[[Shape], int]) -> Iterator[tuple[list[int], Drawn]]:
        """The given episodes, those of one size together, at most ``each(shape)`` of them at once."""
        for shape, members in self.shapes.groups(numbers, self.seed).items():
            most = max(each(shape), 1)
            for first in range(0, len(members), most):
                some = members[first : first + most]
                yield some, draw(self.pools, shape, some, self.seed)


Told = Callable[[list[int], Drawn, Tensor], None]
"""Is told the numbers of some episodes, what they show, and the logits of their queries [E, N Q, N]."""


def score_episodes(
    head: nn.Module,
    source: Source,
    pools: Pools,
    shape: Shape | Shapes,
    count: int,
    seed: int,
    first: int = 0,
    told: Told | None = None,
) -> Tensor:
    """The accuracy of every episode, [count] float32 on the CPU, in the order of their numbers.

    Args:
        head: a support head, in evaluation mode.
        source: features of the split that the pools are of, or its images.
        pools: of that split.
        shape: the episodes' size, or the sizes between which it varies.
        count: how many.
        seed: whose episodes.
        first: the number of the first of them.
        told: looks at their logits as well.
    """
    episodes, numbers = Episodes.of(pools, shape, seed), range(first, first + count)
    found = torch.empty(count)
    with torch.no_grad():  # a head that takes gradients asks for them
        for some, drawn in episodes.in_groups(numbers, lambda shape: _together(source, shape)):
            logits = episode_logits(head, source, drawn).detach()
            labels = drawn.labels()[1].to(logits.device, non_blocking=True)
            found[torch.tensor(some) - first] = (logits.argmax(-1) == labels).float().mean(1).cpu()
            if told is not None:
                told(some, drawn, logits)
    return found


def _together(source: Source, shape: Shape) -> int:
    """How many episodes of a size are classified at once."""
    images = shape.ways * (shape.shots + shape.queries)
    if isinstance(source, Pictures):
        return PIXELS // (images * math.prod(source.split.in_shape) * (source.split.frames or 1))
    return VALUES // (images * max(source.shape[1], shape.ways))
