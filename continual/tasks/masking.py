"""What a stream's head offers, around an objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from engram.backbone.contract import Batch, Objective, Outputs
from engram.continual.tasks.heads import MASKED, HeadMasks

TASK = "task"
"""The column with the task of every row, where rows of several tasks choose among different outputs."""


class Masked(Objective):
    """Asks an objective about logits with the outputs switched off that the head does not offer.

    Rows are of the task at hand, or of those in the batch's column `TASK`.

    Args:
        offered: the objective, of the outputs on offer.
        task: the one at hand.
    """

    def __init__(self, offered: Objective, head: HeadMasks, task: int) -> None:
        self.offered, self.head, self.task = offered, head, task
        self.columns, self.wants, self.by_rows = offered.columns, offered.wants, offered.by_rows
        self.recordable = offered.recordable

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        tasks = batch.columns.get(TASK)
        steps = None if outputs.steps is None else self.masked(outputs.steps, tasks)
        logits, on = self.masked(outputs.logits, tasks), self.allowed(tasks)
        return self.offered(replace(outputs, logits=logits, steps=steps, offered=on), batch, step)

    def allowed(self, tasks: Tensor | None = None) -> Tensor | None:
        """The outputs on offer, [K] bool, or [N, K] to rows of other tasks, [N]; None where all are."""
        return self.head.allowed(tasks if tasks is not None and self.head.by_task else self.task)

    def masked(self, logits: Tensor, tasks: Tensor | None = None) -> Tensor:
        """logits: [..., K]; tasks: [N] of rows, None for the task at hand -> the same, the others at `MASKED`."""
        allowed = self.allowed(tasks)
        return logits if allowed is None else logits.masked_fill(~allowed, MASKED)

    def state_dict(self) -> dict[str, Any]:
        return self.offered.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.offered.load_state_dict(saved)
