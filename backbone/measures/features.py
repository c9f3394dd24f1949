"""The features of whole splits, each image's by itself."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from engram.backbone.data.sets import Split
from engram.backbone.measures.scoring import shown
from engram.backbone.nets.classifier import Classifier


@torch.no_grad()
def in_batches(model: Classifier, split: Split, device: str, first: int = 0) -> Iterator[Tensor]:
    """The features of the images from ``first`` on, [b, F] float32 on the device at a time, in the split's own order.

    In evaluation mode, in which the model has to be, BatchNorm uses what it learned in training, so that no image's
    features depend on another's.
    """
    for images, _, _ in shown(model, split, device, first):
        yield model.backbone(model.normalise(images)).float()


def features_of(model: Classifier, split: Split, device: str) -> Tensor:
    """The features of all images of a split, [N, F] float32 on the device.

    Args:
        model: on the device; it is left in the mode it is in.
        split: the images, in its own order.
        device: where to compute.
    """
    training = model.training
    found = torch.cat(list(in_batches(model.eval(), split, device)))
    model.train(training)
    return found
