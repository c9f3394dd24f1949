"""What heads that adjust are trained by: the likelihood given the variable, never that of their mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Batch, Conditional, Objective, ObjectiveSetting, Outputs, Training, Wanted
from engram.backbone.data.columns import CONTEXT, MEDIATOR
from engram.backbone.errors import must
from engram.backbone.nets.classifier import Classifier


class Given(Objective):
    """Mean over rows of -log of what a head gives to the label at the row's own value of a variable.

    Of ``causal.backdoor`` it is -log P(y | x, z), of ``causal.frontdoor`` -log P(r | x) - log P(y | r, x). The mean
    over the values, which is the head's answer, is not looked at: whatever the head is made of, the mean that makes the
    labels most likely is P(y | x), the answer that is confounded. Given the variable the parts are P(y | x, z), and
    their mean over P(z) is what it has to be.

    Args:
        column: the variable; its values are numbered in ascending order.
        head: the name of the head that it is made for.
        label_smoothing: share of the target that is spread over all classes.
    """

    wants: tuple[Wanted, ...] = ("given",)
    by_rows = True

    def __init__(self, column: str, head: str, label_smoothing: float = 0.0) -> None:
        self.column, self.columns, self.head, self.label_smoothing = column, (column,), head, label_smoothing

    def trained(self, model: Classifier) -> None:
        """All of the network.

        Raises:
            UserError: its head tells no likelihoods given the variable.
        """
        head = model.head
        if not isinstance(head, Conditional) or head.column != self.column:
            rule = f"one that tells likelihoods given the column {self.column!r}"
            raise must(f"the head for {self.column}s", rule, type(head).__name__, f"Add --head {self.head}.")

    def begin(self, training: Training) -> None:
        """Refuse a running average of weights beside a head that keeps training images: it would average these too."""
        if self.column == MEDIATOR and training.options.ema:
            rule, got = (
                f"0 beside {self.head}, whose kept images would be averaged as weights are",
                training.options.ema,
            )
            raise must("--ema", rule, got, "Leave it out.")

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        assert outputs.given is not None  # it was wanted
        values = batch.columns[self.column]
        own = outputs.given[torch.arange(len(values), device=values.device), values]
        batch.losses = F.nll_loss(own, batch.labels, reduction="none")
        if self.label_smoothing:
            batch.losses = (1 - self.label_smoothing) * batch.losses - self.label_smoothing * own.mean(1)
        return batch.losses.mean()


def backdoor(options: None, setting: ObjectiveSetting) -> Given:
    """The objective ``backdoor``, with the column ``context``."""
    return Given(CONTEXT, "causal.backdoor", setting.label_smoothing)


def frontdoor(options: None, setting: ObjectiveSetting) -> Given:
    """The objective ``frontdoor``, with the column ``mediator``."""
    return Given(MEDIATOR, "causal.frontdoor", setting.label_smoothing)
