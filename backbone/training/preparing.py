"""What a network wants to see of its data before it is trained."""

from __future__ import annotations

import math
from typing import Literal

import torch

from engram.backbone.contract import Calibrated, Prepared
from engram.backbone.data.sets import Split
from engram.backbone.nets.classifier import Classifier
from engram.backbone.seeding import generator

PREPARE_IMAGES = 5000
PREPARE_VALUES = 2**24  # fewer images when they are large


def prepare(model: Classifier, data: Split, seed: int, how: Literal["prepare", "calibrate"] = "prepare") -> None:
    """Show normalised training images to a network on the CPU, if it has the method; frames are so many images.

    Args:
        data: the training images, of which the seed draws some.
        how: the backbone's method: ``prepare`` initialises a fresh network, ``calibrate`` what an adapter has added
            to a trained one.
    """
    net = model.backbone
    if how == "prepare" and isinstance(net, Prepared):
        method = net.prepare
    elif how == "calibrate" and isinstance(net, Calibrated):
        method = net.calibrate
    else:
        return
    values = math.prod(data.in_shape) * (data.frames or 1)
    count = min(PREPARE_IMAGES, max(1, PREPARE_VALUES // values))
    order = torch.randperm(len(data), generator=generator(seed, "prepare"))[:count]
    images = torch.cat([x for x, *_ in data.batches(order, 1000, "cpu")])
    with torch.no_grad():
        method(model.normalise(images.flatten(0, 1) if images.ndim == 5 else images))
