"""The first network that some objectives begin from, and what it answers."""

from __future__ import annotations

from torch import Tensor

from engram.backbone.contract import ObjectiveSetting
from engram.backbone.measures.features import features_of
from engram.backbone.nets.classifier import Classifier


def reference_of(setting: ObjectiveSetting) -> Classifier:
    """The network that an objective begins from."""
    assert setting.reference is not None  # it was asked for
    return setting.reference


def answers_of(setting: ObjectiveSetting) -> Tensor:
    """The logits of the reference for all training images, without augmentation, [N, K] float32 on the device."""
    model = reference_of(setting)
    return model.head(features_of(model, setting.data, setting.device)).detach().float()
