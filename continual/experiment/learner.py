"""The one training loop on one task of a stream: heads with masks, and rows of other tasks among a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.data.sets import Split
from engram.backbone.data.views import in_pass
from engram.backbone.hardware import Precision
from engram.backbone.nets.classifier import Classifier
from engram.backbone.seeding import derive
from engram.backbone.training.loop import Batch, Trainer
from engram.backbone.training.optim import Optimizers
from engram.backbone.training.options import TrainingOptions
from engram.continual.strategy import Strategy
from engram.continual.streams.heads import Head, Reach

MASKED = -1e30
"""Logit of an output that must not be chosen: finite, so that zero times it stays zero."""


class Learner(Trainer):
    """Trains on one task; the next task gets a learner of its own, with the same model, optimizers and strategies.

    Args:
        model: on its device from the first task on.
        train: the images of the task, labels as the head numbers them.
        options: of the whole stream; randomness is derived from their seed and the task.
        task: the number of the task.
        head: which outputs count for which task.
        tasks: [N] int64, of which task every image of ``train`` is; None: all of them of this one.
        shuffle: False keeps the order of ``train``, for streams whose order matters.
    """

    strategies: Sequence[Strategy]

    def __init__(
        self,
        model: Classifier,
        train: Split,
        options: TrainingOptions,
        device: str,
        precision: Precision,
        strategies: Sequence[Strategy],
        *,
        task: int,
        head: Head,
        tasks: Tensor | None = None,
        shuffle: bool = True,
        **more: Any,
    ) -> None:
        seeded = replace(options, seed=derive(options.seed, "task", task))
        super().__init__(model, train, seeded, device, precision, strategies, **more)
        self.task, self.head, self.tasks, self.shuffle = task, head, tasks, shuffle
        self.row_tasks: Tensor | None = None
        self.by_rows = any(strategy.by_rows for strategy in strategies)
        reaches: list[Reach] = ["own" if tasks is None else "met", *(strategy.reach for strategy in strategies)]
        self.progress.optimizers.train(head.trained(task, reaches))

    def shows(self, epoch: int) -> Split:
        return in_pass(self.train, epoch)

    def _order(self, epoch: int) -> Tensor:
        return super()._order(epoch) if self.shuffle else torch.arange(len(self.train))

    def replay(self, batch: Batch, images: Tensor, labels: Tensor, tasks: Tensor | None = None) -> None:
        """Append rows to a batch, to be trained on with the task's own. Call it in ``before_forward`` only.

        images: [R, C, H, W] normalised (see `augmented`); labels: [R]; tasks: [R], whose outputs they choose among
        (None where the head asks the same of all tasks).
        """
        if self.head.by_task:
            assert tasks is not None
            self.row_tasks = torch.cat((self._tasks(batch), tasks))
        batch.images = torch.cat((batch.images, images))
        batch.labels = torch.cat((batch.labels, labels))

    def _tasks(self, batch: Batch) -> Tensor:
        """[N], the task of every row so far."""
        if self.row_tasks is not None:
            return self.row_tasks
        if self.tasks is not None:
            return self.tasks[batch.indices].to(batch.labels.device, non_blocking=True)
        return torch.full_like(batch.labels, self.task)

    def masked(self, logits: Tensor, tasks: Tensor | None = None) -> Tensor:
        """Logits with the outputs switched off that the head does not offer now, or to rows of other ``tasks``: [N]."""
        allowed = self.head.allowed(tasks if tasks is not None and self.head.by_task else self.task)
        return logits if allowed is None else logits.masked_fill(~allowed, MASKED)

    def losses(self, logits: Tensor, labels: Tensor, tasks: Tensor | None = None) -> Tensor:
        """Cross-entropy of every row, [N], over the outputs the head offers."""
        return F.cross_entropy(self.masked(logits, tasks), labels, reduction="none")

    def objective(self, batch: Batch) -> Tensor:
        mixed = self.head.by_task and (self.row_tasks is not None or self.tasks is not None)
        tasks = self._tasks(batch) if mixed else None
        self.row_tasks = None
        if not self.by_rows:  # half the time of the mean of rows
            return F.cross_entropy(self.masked(batch.logits, tasks), batch.labels)
        batch.losses = self.losses(batch.logits, batch.labels, tasks)
        return batch.losses.mean()

    def enter(self, task: int) -> None:
        """Tell the strategies whose images come next."""
        for strategy in self.strategies:
            strategy.enter_task(self, task)


def optimizers_for(model: Classifier, options: TrainingOptions, head: Head) -> Optimizers:
    """Fresh ones, as the options have them."""
    return Optimizers(model, options.optimizer, options.lr, options.momentum, options.weight_decay, head.layers)
