"""The first network that some objectives begin from, and what it answers."""

from __future__ import annotations

from torch import Tensor

from engram.backbone.contract import ObjectiveSetting
from engram.backbone.errors import must
from engram.backbone.measures.features import features_of
from engram.backbone.nets.classifier import Classifier


def reference_of(setting: ObjectiveSetting, name: str) -> Classifier:
    """The network that the objective ``name`` begins from.

    Raises:
        UserError: the experiment trains none.
    """
    if setting.reference is None:
        rule = "one that begins from no other network, in an experiment that trains none"
        raise must("--objective", rule, name, "Use backbone.train, or another objective.")
    return setting.reference


def answers_of(setting: ObjectiveSetting, name: str) -> Tensor:
    """The logits of the reference for all training images, without augmentation, [N, K] float32 on the device.

    Raises:
        UserError: as `reference_of`.
    """
    model = reference_of(setting, name)
    return model.head(features_of(model, setting.data, setting.device)).detach().float()
