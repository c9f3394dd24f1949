"""What a stream's head offers, around an objective."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from engram.backbone.contract import Batch, Objective, Outputs
from engram.backbone.objectives.around import Around
from engram.continual.tasks.heads import MASKED, HeadMasks

TASK = "task"
"""The column with the task of every row, where rows of several tasks choose among different outputs."""


class Masked(Around):
    """Asks an objective about logits with the outputs switched off that the head does not offer.

    Rows are of the task at hand, or of those in the batch's column `TASK`.

    Args:
        inner: the objective, of the outputs on offer.
        task: the one at hand.
    """

    def __init__(self, inner: Objective, head: HeadMasks, task: int) -> None:
        super().__init__(inner)
        self.head, self.task = head, task

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        tasks = batch.columns.get(TASK)
        steps = None if outputs.steps is None else self.masked(outputs.steps, tasks)
        logits, on = self.masked(outputs.logits, tasks), self.allowed(tasks)
        return self.inner(replace(outputs, logits=logits, steps=steps, offered=on), batch, step)

    def allowed(self, tasks: Tensor | None = None) -> Tensor | None:
        """The outputs on offer, [K] bool, or [N, K] to rows of other tasks, [N]; None where all are."""
        return self.head.allowed(tasks if tasks is not None and self.head.by_task else self.task)

    def masked(self, logits: Tensor, tasks: Tensor | None = None) -> Tensor:
        """logits: [..., K]; tasks: [N] of rows, None for the task at hand -> the same, the others at `MASKED`."""
        allowed = self.allowed(tasks)
        return logits if allowed is None else logits.masked_fill(~allowed, MASKED)
