"""The head that answers with the nearest class mean (``--head prototype``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engram.backbone import contract
from engram.backbone.contract import Learner, Task
from engram.backbone.data.sets import MemorySplit, Split
from engram.backbone.measures.scoring import SCORING_BATCH
from engram.backbone.nets.prototypes import nearest_mean
from engram.continual.strategy import StrategyBase
from engram.continual.tasks.heads import MASKED


class Prototypes(StrategyBase):
    """Class means in feature space, taken when a task ends; the linear layer trains as ever, tests do without it.

    Means of earlier classes are taken again with the network as it is now where another strategy keeps images of
    them; elsewhere they stay what they were, and drift away from what the network makes of their class.

    Source: nearest class mean, Mensink et al. 2013; for streams: Rebuffi et al. 2017 (arXiv 1611.07725), section 2.1.
    """

    recordable = True
    reach = "own"
    means: Tensor | None = None
    """[outputs, D]"""
    known: Tensor
    """[outputs] bool"""

    @torch.no_grad()
    def after_task(self, learner: Learner, task: Task) -> None:
        splits = [*kept(learner.strategies, learner.task), learner.data]
        each = [class_sums(learner, split, self.setting.outputs) for split in splits]
        sums, counts = (torch.stack(parts).sum(0) for parts in zip(*each, strict=True))
        if self.means is None:
            self.means = torch.zeros_like(sums)
            self.known = torch.zeros_like(counts, dtype=torch.bool)
        there = counts > 0
        self.means[there] = sums[there] / counts[there, None]
        self.known |= there

    def scores(self, learner: Learner, images: Tensor) -> Tensor | None:
        if self.means is None:
            return None
        weight, bias = nearest_mean(self.means)
        features = learner.model.backbone(images).float()
        return (features @ weight.T + bias).masked_fill(~self.known, MASKED)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.means is None else {"means": self.means, "known": self.known}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        if saved:
            self.means, self.known = (saved[name].to(self.setting.device, copy=True) for name in ("means", "known"))


def kept(strategies: Sequence[contract.Strategy], before: int) -> list[MemorySplit]:
    """The images that strategies keep of the tasks before one."""
    found = []
    for stored in (strategy.stored() for strategy in strategies):
        rows = None if stored is None else (stored["tasks"] < before).nonzero().squeeze(1)
        if stored is not None and rows is not None and len(rows):
            found.append(MemorySplit(stored["images"][rows].cpu(), stored["labels"][rows].cpu()))
    return found


@torch.no_grad()
def class_sums(learner: Learner, split: Split, outputs: int) -> tuple[Tensor, Tensor]:
    """Sums of features per output, [outputs, D], and how many images each has, [outputs]; in evaluation mode."""
    model = learner.model
    training = model.training
    model.eval()
    width: Any = model.backbone.feature_dim
    sums, counts = torch.zeros(outputs, width, device=learner.device), torch.zeros(outputs, device=learner.device)
    size = max(SCORING_BATCH // (split.frames or 1), 1)
    for images, labels, _ in split.batches(torch.arange(len(split)), size, learner.device):
        sums.index_add_(0, labels, model.backbone(model.normalise(images)).float())
        counts += torch.bincount(labels, minlength=outputs)
    model.train(training)
    return sums, counts
