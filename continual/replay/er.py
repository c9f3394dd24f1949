"""Experience replay: old images among the new ones."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from engram.backbone.contract import Batch, Learner, Setting, Task
from engram.continual.replay.options import EROptions
from engram.continual.replay.rehearsal import Rehearsal, keep_drawn, keep_herded


class ER(Rehearsal):
    """Every step trains on the task's rows and on rows from the buffer, in one forward pass.

    Weighted by rows, the loss is the mean over all of them; by tasks ``1/T L_task + (1 - 1/T) L_replay`` at the T-th
    task, and nothing is replayed in the first one. Where images are kept at the end of a task (random, herding), only
    earlier tasks are replayed.

    Source: Chaudhry et al. 2019 (arXiv 1902.10486), algorithm 1 (rows); van de Ven et al. 2022, "Three types of
    incremental learning" (tasks, with random).
    """

    name: ClassVar[str] = "er"
    apart = False
    options: EROptions
    span: slice | None = None
    """Rows of the batch at hand that were replayed."""

    def __init__(self, options: EROptions, setting: Setting, model: nn.Module) -> None:
        told = options.selection
        self.selection = None if told == "random" or told == "herding" else told
        super().__init__(options, setting, model)
        self.by_rows = options.weighting == "tasks"
        if self.selection is None:
            self.need_a_place_for_all()

    def before_forward(self, learner: Learner, batch: Batch) -> None:
        self.span = None
        if not self.ready or (self.options.weighting == "tasks" and learner.task == 0):
            return
        images, rows = self.recall(learner)
        first = len(batch.labels)
        learner.replay(batch, images, rows.labels, rows.tasks)
        self.span = slice(first, len(batch.labels))

    def loss(self, learner: Learner, batch: Batch, loss: Tensor) -> Tensor:
        if self.options.weighting == "rows" or self.span is None:
            return loss
        replayed = batch.losses[self.span]
        rest = (batch.losses.sum() - replayed.sum()) / (len(batch.losses) - len(replayed))
        share = 1 / (learner.task + 1)
        return loss - batch.losses.mean() + share * rest + (1 - share) * replayed.mean()

    def after_task(self, learner: Learner, task: Task) -> None:
        if self.options.selection == "herding":
            keep_herded(learner, self.buffer, task.train)
        elif self.options.selection == "random":
            keep_drawn(learner, self.buffer, task.train, self.setting.buffer // self.setting.groups)
