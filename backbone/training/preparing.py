"""What a network, and a head, want to see of their data before they are trained."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from engram.backbone.contract import Calibrated, Filled, Prepared
from engram.backbone.data.sets import Split
from engram.backbone.nets.classifier import Classifier
from engram.backbone.seeding import generator

PREPARE_IMAGES = 5000
FILL_BATCH = 100
PREPARE_VALUES = 2**24  # fewer images when they are large


def prepare(model: Classifier, data: Split, seed: int, how: Literal["prepare", "calibrate"] = "prepare") -> None:
    """Show normalised training images to a network on the CPU, if it has the method; frames are so many images.

    The head of a fresh network is filled as well (`fill`).

    Args:
        data: the training images, of which the seed draws some.
        how: the backbone's method: ``prepare`` initialises a fresh network, ``calibrate`` what an adapter has added
            to a trained one.
    """
    _show(model, data, seed, how)
    if how == "prepare":
        fill(model, data, seed)


def fill(model: Classifier, data: Split, seed: int) -> None:
    """Fill a fresh head from the features of training images on the CPU, if it wants to see some.

    Args:
        data: the training images, of which the seed draws some.
        seed: of the training.

    Raises:
        UserError: the data do not fit the head.
    """
    head = model.head
    if not isinstance(head, Filled):
        return
    rows, training = _some(data, seed), model.training
    model.eval()
    with torch.no_grad():
        features = [model.backbone(model.normalise(x)) for x, *_ in data.batches(rows, FILL_BATCH, "cpu")]
        head.fill(torch.cat(features), rows, data, seed)
    model.train(training)


def _show(model: Classifier, data: Split, seed: int, how: Literal["prepare", "calibrate"]) -> None:
    net = model.backbone
    if how == "prepare" and isinstance(net, Prepared):
        method = net.prepare
    elif how == "calibrate" and isinstance(net, Calibrated):
        method = net.calibrate
    else:
        return
    images = torch.cat([x for x, *_ in data.batches(_some(data, seed), 1000, "cpu")])
    with torch.no_grad():
        method(model.normalise(images.flatten(0, 1) if images.ndim == 5 else images))


def _some(data: Split, seed: int) -> Tensor:
    """Positions of images drawn by the seed."""
    values = math.prod(data.in_shape) * (data.frames or 1)
    count = min(PREPARE_IMAGES, max(1, PREPARE_VALUES // values))
    return torch.randperm(len(data), generator=generator(seed, "prepare"))[:count]
