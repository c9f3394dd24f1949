"""The cross-entropy with the labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Batch, Objective, ObjectiveSetting, Outputs


class CrossEntropy(Objective):
    """Mean over rows of the cross-entropy with the labels.

    Args:
        label_smoothing: share of the target that is spread over all classes.
    """

    by_rows = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        some_off = self.label_smoothing and outputs.offered is not None
        if not batch.by_rows and not some_off:  # half the time of the mean of rows
            return F.cross_entropy(outputs.logits, batch.labels, label_smoothing=self.label_smoothing)
        batch.losses = cross_entropies(outputs.logits, batch.labels, self.label_smoothing, outputs.offered)
        return batch.losses.mean()


def cross_entropies(logits: Tensor, labels: Tensor, smoothing: float, offered: Tensor | None = None) -> Tensor:
    """The loss of every row, [N]; labels are smoothed over the outputs on offer alone.

    logits: [N, K]; labels: [N]; offered: [K] or [N, K] bool, None where all are: logits of the others are far below.
    """
    if not smoothing or offered is None:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    offered = offered.expand_as(logits)
    spread = logits.log_softmax(1).masked_fill(~offered, 0.0).sum(1) / offered.sum(1)
    return (1 - smoothing) * F.cross_entropy(logits, labels, reduction="none") - smoothing * spread


def cross_entropy(options: None, setting: ObjectiveSetting) -> CrossEntropy:
    """The objective ``cross-entropy``, with the label smoothing that the options of the training have."""
    return CrossEntropy(setting.label_smoothing)
