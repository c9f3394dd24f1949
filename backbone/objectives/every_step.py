"""Temporal efficient training: the loss of every step's outputs in place of that of the read-out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from engram.backbone.contract import Batch, Objective, Outputs, Wanted
from engram.backbone.errors import must

TARGET = 1.0
"""phi: what the outputs of every step are drawn to, a threshold."""


class EveryStep(Objective):
    """Asks an objective about the outputs of every step, which are each to be right by themselves.

        L = (1 - lambda) mean_t L(o_t, y) + lambda mean_t MSE(o_t, phi)

    All steps make one batch for the objective, of S times as many rows. With one step and lambda = 0 it is the
    objective itself.

    Args:
        each: the objective L; it looks at logits alone.
        share: lambda in [0, 1).

    Source: Deng et al. 2022 (arXiv 2202.11946), section 4.3, with phi = `TARGET`.
    """

    wants: tuple[Wanted, ...] = ("steps",)
    recordable = False

    def __init__(self, each: Objective, share: float) -> None:
        if each.wants:
            got = f"one that wants {' and '.join(each.wants)}"
            raise must("the objective of every step", "one that looks at logits alone", got, "Leave out --tet.")
        self.each, self.share = each, share
        self.columns, self.by_rows = each.columns, each.by_rows

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        steps = outputs.steps
        assert steps is not None  # it was wanted
        rows = batch.repeated(len(steps))
        loss = self.each(Outputs(steps.flatten(0, 1)), rows, step)
        if batch.by_rows:
            batch.losses = rows.losses.unflatten(0, (len(steps), -1)).mean(0)
        return (1 - self.share) * loss + self.share * (steps - TARGET).square().mean() if self.share else loss

    def state_dict(self) -> dict[str, Any]:
        return self.each.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.each.load_state_dict(saved)
