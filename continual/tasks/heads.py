"""Which outputs of the network a task may use.

The head is one linear layer with an output for every class of the whole stream. Separate layers per task, and a layer
that grows with the classes, compute exactly what this one computes with the other outputs switched off. They also learn
as these do: outputs that are not trained do not move, and have moments of their own (`HeadMasks.layers`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from engram.backbone.contract import Reach

Kind = Literal["single", "multi", "growing", "prototype"]
MASKED = -1e30
"""Logit of an output that must not be chosen: finite, so that zero times it stays zero."""


class HeadMasks:
    """Masks over the outputs.

    - ``single``: all outputs, always.
    - ``multi``: the outputs of the image's task, which must be known.
    - ``growing``: the outputs of the classes met so far.
    - ``prototype``: as ``growing`` while training; tests go to the nearest class mean (`engram.continual.prototypes`).

    Args:
        kind: which of them.
        outputs: for every task the outputs its images may have.
        width: outputs in all.
        device: where the masks are needed.
        closed: whether the images of a task only have the task's outputs.
    """

    def __init__(
        self, kind: Kind, outputs: Sequence[Sequence[int]], width: int, device: str, *, closed: bool = True
    ) -> None:
        self.kind, self.width = kind, width
        table = torch.zeros(len(outputs), width, dtype=torch.bool)
        for task, chosen in enumerate(outputs):
            table[task, list(chosen)] = True
        self.table = table.to(device)
        """[tasks, width] bool, what each task uses."""
        self.shown = self.table if closed else torch.ones_like(self.table)
        """[tasks, width] bool, what images of each task may be."""
        self.met = self.shown.cumsum(0).bool()
        """[tasks, width] bool, what has been used when a task has begun."""
        self.by_task = kind == "multi" and not bool(table.all())
        """Whether rows of different tasks choose among different outputs."""
        apart = self.by_task or (kind in ("growing", "prototype") and not bool(self.met[0].all()))
        self.layers: Sequence[Sequence[int]] = outputs if apart else ()
        """The outputs of every task, where they are a layer that is not always trained."""

    def trained(self, task: int, reaches: Collection[Reach]) -> range:
        """Which of ``layers`` move in a task, when gradients have these ``reaches``."""
        if "all" in reaches:
            return range(len(self.layers))
        return range(task if self.kind == "multi" and "met" not in reaches else 0, task + 1)

    def allowed(self, task: int | Tensor) -> Tensor | None:
        """[width] bool for a task being trained on, [N, width] for rows of tasks [N]; None where nothing is off.

        For a growing head the task is the one being trained on, or the last one trained on, whichever a row came in.
        """
        if self.kind == "multi":
            return self.table[task] if self.by_task else None
        if self.kind == "single":
            return None
        return self.met[task]
