"""What enrolled classes answer to other pictures, from features alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.nets.prototypes import class_means
from engram.fewshot.enrolling.rejection import distances, left_out, limit

LEFT_OUT = 100
"""Classes up to which each is left out in turn."""
_AT_ONCE = 4096


@dataclass(frozen=True)
class Answers:
    """Everything there is to say of some pictures, of classes that were enrolled.

    Attributes:
        head: the support head.
        support: [S, F] features of the pictures enrolled; ``known``: [S] their classes.
        queries: [Q, F] features of those asked about; ``labels``: [Q] their classes.
        ways: K.
        reject: the share that the threshold is chosen by; None for no threshold.
    """

    head: nn.Module
    support: Tensor
    known: Tensor
    queries: Tensor
    labels: Tensor
    ways: int
    reject: float | None

    @cached_property
    def fitted(self) -> nn.Module:
        """The head for these classes."""
        return self._fit(self.support, self.known, self.ways)

    def _fit(self, support: Tensor, known: Tensor, ways: int) -> nn.Module:
        head: Any = self.head
        with torch.no_grad():
            return head.fitted(support, known, ways).eval().requires_grad_(False)

    @cached_property
    def logits(self) -> Tensor:
        """[Q, K] on the CPU."""
        return self._asked(self.fitted, self.queries)

    @torch.no_grad()
    def _asked(self, head: nn.Module, queries: Tensor) -> Tensor:
        return torch.cat([head(part).float().cpu() for part in queries.split(_AT_ONCE)])

    @cached_property
    def right(self) -> Tensor:
        """[Q] bool."""
        return self.logits.argmax(1) == self.labels

    @cached_property
    def margins(self) -> Tensor:
        """How much larger the logit of a picture's class is than the largest of the others, [Q]; wrong ones below 0."""
        own = self.logits.gather(1, self.labels[:, None]).squeeze(1)
        return own - self.logits.scatter(1, self.labels[:, None], -torch.inf).amax(1)

    @cached_property
    def rivals(self) -> Tensor:
        """The class of that other logit, [Q]."""
        return self.logits.scatter(1, self.labels[:, None], -torch.inf).argmax(1)

    @cached_property
    def threshold(self) -> float | None:
        """The squared distance beyond which a picture is of none of these classes."""
        return None if self.reject is None else limit(left_out(self.support, self.known, self.ways), self.reject)

    @cached_property
    def rejected(self) -> Tensor | None:
        """Which pictures are said to be of none, [Q] bool on the CPU, though they are of one."""
        if self.threshold is None:
            return None
        means = class_means(self.support, self.known, self.ways)
        return (distances(self.queries, means) > self.threshold).cpu()

    def rejected_unknown(self) -> list[float | None]:
        """For each class the share of its pictures that is said to be of none where it alone was not enrolled.

        The threshold is then chosen on the others. None for a class without pictures.
        """
        if self.reject is None or not 2 < self.ways <= LEFT_OUT:
            return []
        return [self._without(number) for number in range(self.ways)]

    def _without(self, number: int) -> float | None:
        stays, asked = self.known != number, self.queries[(self.labels == number).to(self.queries.device)]
        known = self.known[stays]
        known = known - (known > number).long()
        far = limit(left_out(self.support[stays], known, self.ways - 1), self.reject or 0.0)
        if far is None or not len(asked):
            return None
        means = class_means(self.support[stays], known, self.ways - 1)
        return float((distances(asked, means) > far).float().mean())

    def nearest(self, rows: Tensor, classes: Tensor) -> Tensor:
        """rows: [n] pictures asked about, classes: [n] -> [n] the nearest picture enrolled of each class."""
        asked = self.queries[rows.to(self.queries.device)]
        far = torch.cdist(asked, self.support)
        other = self.known[None] != classes.to(self.known.device)[:, None]
        return far.masked_fill(other, torch.inf).argmin(1).cpu()
