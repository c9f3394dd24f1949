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
        if not batch.by_rows:  # half the time of the mean of rows
            return F.cross_entropy(outputs.logits, batch.labels, label_smoothing=self.label_smoothing)
        batch.losses = self.losses(outputs.logits, batch.labels)
        return batch.losses.mean()

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits: [N, K], labels: [N] -> the loss of every row, [N]."""
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)


def cross_entropy(options: None, setting: ObjectiveSetting) -> CrossEntropy:
    """With the label smoothing of the training."""
    return CrossEntropy(setting.label_smoothing)
