"""The objective ``feedback.reconstruction``: predictions of a network that stays as it is."""

from __future__ import annotations

from torch import Tensor, nn

from engram.backbone.contract import Batch, Objective, ObjectiveSetting, Outputs, Predicting, Wanted
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.needs import need


class Reconstruction(Objective):
    """Sum over stages of the mean squared error of what each predicts of the one before, in the plain pass.

    No label is looked at, and nothing but the predictions is trained.

    Source: Choksi et al. 2021 (arXiv 2106.02749), section 3.
    """

    wants: tuple[Wanted, ...] = ("predictions",)

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        assert outputs.predictions is not None  # wanted
        return outputs.predictions.sum()

    def trained(self, model: Classifier) -> nn.Module:
        return need(model.backbone, Predicting, "feedback.reconstruction").predictors()


def reconstruction(options: None, setting: ObjectiveSetting) -> Reconstruction:
    """The objective; it has no options."""
    return Reconstruction()
