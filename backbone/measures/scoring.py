"""Scoring a classifier on a set of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.hardware import autocast
from engram.backbone.nets.layout import arranged

if TYPE_CHECKING:
    from engram.backbone.data.sets import Split
    from engram.backbone.measures.confusions import Confusions
    from engram.backbone.nets.classifier import Classifier

SCORING_BATCH = 512  # images, or frames of them


def shown(model: Classifier, split: Split, device: str, first: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The images of a split from ``first`` on in its own order, as many at a time as scoring takes.

    Yields images [b, C, H, W] uint8 (of recordings [b, T, C, H, W]) in the memory layout of the network, labels [b] and
    positions [b]. The mode of the network and gradients are for whoever asks.
    """
    size = max(SCORING_BATCH // (split.frames or 1), 1)
    for images, labels, places in split.batches(torch.arange(first, len(split)), size, device):
        yield arranged(images, model.backbone), labels, places


@torch.inference_mode()
def score(
    model: Classifier,
    split: Split,
    device: str,
    precision: str = "fp32",
    targets: Tensor | None = None,
    confusions: Confusions | None = None,
) -> dict[str, float]:
    """Accuracy (fraction), mean cross-entropy (nat) and number of images, in evaluation mode.

    Args:
        model: on ``device``.
        split: the images, in its own order.
        device: where to compute.
        precision: "fp32" or "bf16" (autocast).
        targets: [K] int64, the model's class for each of the split's K classes; None when they are the same.
        confusions: is told of every answer.
    """
    training = model.training
    model.eval()
    right, loss = 0, 0.0
    for images, labels, _ in shown(model, split, device):
        with autocast(device, precision):
            logits = model(images).float()
        labels = labels if targets is None else targets.to(labels.device)[labels]
        right += int((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        if confusions is not None:
            confusions.add(images, labels, logits)
    model.train(training)
    return {"accuracy": right / len(split), "loss": loss / len(split), "images": float(len(split))}
