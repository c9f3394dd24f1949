"""Whether each class is in the image: where several may be, or none."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Batch, Objective, ObjectiveSetting, Outputs
from engram.backbone.data.columns import PRESENT
from engram.backbone.errors import must


class Present(Objective):
    """Binary cross-entropy of every output, through a sigmoid, with the column ``present`` [N, K]: its mean.

    Outputs that are not on offer are left out.

    Args:
        label_smoothing: the share of a target that is one half.

    Source: Spoerer, McClure and Kriegeskorte 2017 (doi 10.3389/fpsyg.2017.01551), whose network has a sigmoid for every
    digit.
    """

    columns = (PRESENT,)
    by_rows = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        targets = batch.columns[PRESENT].float()
        targets = targets + self.label_smoothing * (0.5 - targets)
        each = F.binary_cross_entropy_with_logits(outputs.logits, targets, reduction="none")
        if outputs.offered is None:
            batch.losses = each.mean(1)
        else:
            offered = outputs.offered.expand_as(each)
            batch.losses = each.where(offered, 0.0).sum(1) / offered.sum(1)
        return batch.losses.mean()


def present(options: None, setting: ObjectiveSetting) -> Present:
    """The objective ``present``, with the label smoothing that the options of the training have.

    Raises:
        UserError: the head has not one output for each class of the column.
    """
    column = setting.data.columns.get(PRESENT)
    classes = len(column[0]) if column is not None and len(column) else setting.outputs
    if classes != setting.outputs:
        rule = f"as many as the classes of the column {PRESENT!r}, {classes}"
        raise must("the outputs of the head", rule, setting.outputs, "Train on all classes at once.")
    return Present(setting.label_smoothing)
