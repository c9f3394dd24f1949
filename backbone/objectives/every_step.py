"""The loss of every step's outputs in place of that of the read-out: temporal efficient training, discounted losses."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from engram.backbone.contract import Batch, Objective, Outputs
from engram.backbone.objectives.around import Around

TARGET = 1.0
"""phi: what the outputs of every step are drawn to, a threshold."""


class EveryStep(Around):
    """Asks an objective about the outputs of every step, which are each to be right by themselves.

        L = sum_t w_t ((1 - lambda) L(o_t, y) + lambda MSE(o_t, phi)),    w_t = gamma^(T - t) / sum_s gamma^(T - s)

    With gamma = 1 it is the mean over steps. All steps make one batch for the objective, of T times as many rows. With
    one step and lambda = 0 it is the objective itself.

    Args:
        each: the objective L; it looks at logits alone.
        share: lambda in [0, 1).
        discount: gamma in (0, 1]; below 1 ``each`` has to tell the loss of every row.

    Source: Deng et al. 2022 (arXiv 2202.11946), section 4.3, with phi = `TARGET`; discounted over steps as in Zamir et
    al. 2017 (arXiv 1612.09508), but from the last step back.
    """

    def __init__(self, each: Objective, share: float = 0.0, discount: float = 1.0) -> None:
        super().__init__(each)
        self.share, self.discount = share, discount
        self.wants, self.recordable = ("steps",), False

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        steps = outputs.steps
        assert steps is not None  # it was wanted
        rows = batch.repeated(len(steps))
        if self.discount < 1:
            return self._discounted(steps, rows, batch, step)
        loss = self.inner(Outputs(steps.flatten(0, 1)), rows, step)
        if batch.by_rows:
            batch.losses = rows.losses.unflatten(0, (len(steps), -1)).mean(0)
        return (1 - self.share) * loss + self.share * (steps - TARGET).square().mean() if self.share else loss

    def _discounted(self, steps: Tensor, rows: Batch, batch: Batch, step: int) -> Tensor:
        """The loss of steps [T, N, K], whose rows are those of ``batch`` T times."""
        rows = replace(rows, by_rows=True)
        self.inner(Outputs(steps.flatten(0, 1)), rows, step)
        weights = self.discount ** torch.arange(len(steps) - 1, -1, -1, device=steps.device, dtype=steps.dtype)
        weights = weights / weights.sum()
        losses = weights @ rows.losses.unflatten(0, (len(steps), -1))
        if batch.by_rows:
            batch.losses = losses
        drawn = weights @ (steps - TARGET).square().flatten(1).mean(1)
        return (1 - self.share) * losses.mean() + self.share * drawn
