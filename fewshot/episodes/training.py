"""Training by episodes, for the one training loop: a batch is some of them, and the loss is that of their queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.contract import AdaptingHead, Batch, Objective, Outputs, OwnLoss, SupportHead
from engram.backbone.data.sets import Split
from engram.backbone.errors import must
from engram.backbone.nets.classifier import Classifier
from engram.backbone.seeding import derive
from engram.fewshot.episodes.sampling import Pools, Shape, draw

PASS = 100
"""Episodes of one pass; what a training of fewer has is one pass."""


@dataclass(frozen=True, eq=False)
class EpisodeSampler:
    """Episodes in a row, those of a pass: of each ``together`` first all support images, then all queries.

    Args:
        pools: of the training images.
        shape: of an episode.
        episodes: in a pass.
        together: episodes a step.
    """

    pools: Pools
    shape: Shape
    episodes: int
    together: int = 1

    @property
    def images(self) -> int:
        """Images a step shows."""
        return self.together * self.shape.ways * (self.shape.shots + self.shape.queries)

    def rows(self, data: Split) -> int:
        return self.images * -(-self.episodes // self.together)

    def order(self, data: Split, seed: int, epoch: int) -> Tensor:
        steps = -(-self.episodes // self.together)
        numbers = range(epoch * steps * self.together, (epoch + 1) * steps * self.together)
        drawn = draw(self.pools, self.shape, numbers, derive(seed, "training"))
        parts = [part.reshape(steps, -1) for part in (drawn.support, drawn.queries)]
        return torch.cat(parts, 1).flatten()


class Through(nn.Module):
    """A support head as a classifier's last part while it is trained: its weights are the classifier's.

    What comes out are the features, whatever ``head`` makes of them; so a pass over a batch is that of any network.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        return features


class Episodic(Objective):
    """The loss of the queries of a batch that `EpisodeSampler` laid out: cross-entropy, or the head's own.

    Args:
        model: the head of which is a `Through`.
        shape: of an episode.
        together: episodes a step.
        label_smoothing: share of the target that is spread over all classes.
        device: where the training computes.

    Raises:
        UserError: the head's logits pass no gradient on to the features.
    """

    def __init__(self, model: Classifier, shape: Shape, together: int, label_smoothing: float, device: str) -> None:
        assert isinstance(model.head, Through)
        self.head, self.net, self.shape = model.head.head, model.backbone, shape
        self.adapts = isinstance(self.head, AdaptingHead)
        self.wants = ("images",) if self.adapts else ()
        self.recordable = not self.adapts
        self.label_smoothing, self.together = label_smoothing, together
        ways = torch.arange(shape.ways, device=device)
        self.known, self.asked = (
            ways.repeat_interleave(count).expand(together, -1).contiguous() for count in (shape.shots, shape.queries)
        )
        if not self.adapts:
            width: Any = model.backbone.feature_dim
            _need_gradient(self.head, shape, width)

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        shown = outputs.images if self.adapts else outputs.logits  # of `Through`: the features
        assert shown is not None  # wanted
        count = self.together * self.shape.ways * self.shape.shots
        support = shown[:count].unflatten(0, (self.together, -1))
        queries = shown[count:].unflatten(0, (self.together, -1))
        return self._loss(self._logits(queries, support))

    def _logits(self, queries: Tensor, support: Tensor) -> Tensor:
        ways = self.shape.ways
        if isinstance(self.head, AdaptingHead):
            return self.head.from_images(self.net, queries, support, self.known, ways)
        assert isinstance(self.head, SupportHead)
        return self.head.from_support(queries, support, self.known, ways)

    def _loss(self, logits: Tensor) -> Tensor:
        if isinstance(self.head, OwnLoss):
            return self.head.loss(logits, self.asked)
        return F.cross_entropy(logits.flatten(0, 1), self.asked.flatten(), label_smoothing=self.label_smoothing)


def _need_gradient(head: nn.Module, shape: Shape, width: int) -> None:
    """Raises UserError for a head whose logits pass no gradient on to features [E, S, width]."""
    support = torch.randn(1, shape.ways * shape.shots, width, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(shape.ways).repeat_interleave(shape.shots)[None]
    assert isinstance(head, SupportHead)
    if not head.from_support(support, support.clone().requires_grad_(), labels, shape.ways).requires_grad:
        step = "Use --training classifier, or none with --from."
        raise must("the head to train by episodes", "one whose answers can be trained", type(head).__name__, step)
