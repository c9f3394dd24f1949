"""iCaRL: exemplars among the training images, the old network's answers as targets, the nearest mean as answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.contract import Batch, Learner, Setting, Task, Tasks
from engram.backbone.data.sets import MemorySplit, Split
from engram.backbone.hardware import autocast
from engram.backbone.nets.prototypes import nearest_mean
from engram.continual.replay.options import ICaRLOptions
from engram.continual.replay.rehearsal import Rehearsal, features, keep_herded
from engram.continual.strategy import frozen
from engram.continual.tasks.heads import MASKED


class ICaRL(Rehearsal):
    """A task trains on its images and all exemplars alike; every class so far is a yes-or-no question.

    The loss of a row is a binary cross-entropy summed over the classes so far (``scale``). Its targets are, for the
    classes of the task, whether the row is of them, and for those of earlier tasks the sigmoid outputs of the network
    as it was before the task, on the same augmented row. Tests answer with the class whose mean is nearest: the
    L2-normalised mean of the L2-normalised features of its exemplars, by the network as it is.

    Source: Rebuffi et al. 2017 (arXiv 1611.07725), algorithms 1 to 5.
    """

    name: ClassVar[str] = "icarl"
    selection = None
    apart = False
    options: ICaRLOptions

    def __init__(self, options: ICaRLOptions, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        self.need_a_place_for_all()
        self.model = model
        self.old: Any = None
        """The classifier as it was when the last task ended."""
        self.known = torch.zeros(setting.outputs, dtype=torch.bool, device=setting.device)
        """[outputs], classes of earlier tasks."""
        self.met = self.known.clone()
        """[outputs], these and the classes of the task at hand."""
        self.means: tuple[list[int], Tensor, Tensor] | None = None

    def training_data(self, stream: Tasks, task: Task) -> tuple[Split, Tensor | None] | None:
        if not len(self.buffer):
            return None
        kept = self.buffer.content()
        exemplars = MemorySplit(kept.images.cpu().clone(), kept.labels.cpu().clone())
        tasks = torch.cat((torch.full((len(task.train),), task.index), kept.tasks.cpu()))
        return task.train.and_also(exemplars), tasks

    def before_task(self, learner: Learner, task: Task) -> None:
        self.known.copy_(self.met)
        self.met[task.train.labels.unique()] = True

    def loss(self, learner: Learner, batch: Batch, loss: Tensor) -> Tensor:
        targets = F.one_hot(batch.labels, self.setting.outputs).float()
        weights = self.met.float()
        if self.old is not None:
            with torch.no_grad(), autocast(learner.device, learner.precision):
                answers = self.old.forward_normalised(batch.images).float().sigmoid()
            targets = torch.where(self.known, answers, targets)
            weights = torch.where(self.known, self.options.distill, weights)
        each = F.binary_cross_entropy_with_logits(batch.logits, targets, weights, reduction="none")
        loss = each.sum(1).mean()
        return loss / self.met.sum() if self.options.scale == "mean" else loss

    def after_step(self, learner: Learner, batch: Batch) -> None:
        self.means = None  # fused optimizers do not count as a change of the weights

    def after_task(self, learner: Learner, task: Task) -> None:
        keep_herded(learner, self.buffer, task.train)
        self.means = None
        self.old = frozen(learner.model)

    def scores(self, learner: Learner, images: Tensor) -> Tensor | None:
        if not len(self.buffer):
            return None
        means, there = self._means(learner)
        found = F.normalize(learner.model.backbone(images).float(), dim=1)
        return F.linear(found, *nearest_mean(means)).masked_fill(~there, MASKED)

    def _means(self, learner: Learner) -> tuple[Tensor, Tensor]:
        """[outputs, D] means and [outputs] bool, which there are; taken again when weights or exemplars change."""
        state = [p._version for p in learner.model.parameters()]
        if self.means is None or self.means[0] != state:
            kept = self.buffer.content()
            found = F.normalize(features(learner, kept.images), dim=1)
            sums = found.new_zeros(self.setting.outputs, found.shape[1]).index_add_(0, kept.labels, found)
            there = torch.bincount(kept.labels, minlength=self.setting.outputs) > 0
            self.means = (state, F.normalize(sums, dim=1), there)  # the mean has the direction of the sum
        return self.means[1], self.means[2]

    def state_dict(self) -> dict[str, Any]:
        old = None if self.old is None else self.old.state_dict()
        return {**super().state_dict(), "old": old, "known": self.known, "met": self.met}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        super().load_state_dict(saved)
        self.known.copy_(saved["known"])
        self.met.copy_(saved["met"])
        self.means = None
        if saved["old"] is not None:
            self.old = frozen(self.model)
            self.old.load_state_dict(saved["old"])
