"""Scoring a classifier on a set of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.hardware import autocast
from engram.backbone.nets.layout import arranged
from engram.backbone.ranks import current

if TYPE_CHECKING:
    from engram.backbone.data.sets import Split
    from engram.backbone.measures.confusions import Confusions
    from engram.backbone.nets.classifier import Classifier
    from engram.backbone.ranks import Ranks

SCORING_BATCH = 512  # images, or frames of them


def shown(
    model: Classifier, split: Split, device: str, first: int = 0, ranks: Ranks | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The images of a split from ``first`` on in its own order, as many at a time as scoring takes.

    Yields images [b, C, H, W] uint8 (of recordings [b, T, C, H, W]) in the memory layout of the network, labels [b] and
    positions [b]. The mode of the network and gradients are for whoever asks. Of several ``ranks`` each is shown every
    such lot in its turn.
    """
    size = lot(split)
    order = torch.arange(first, len(split))
    if ranks is not None:
        order = torch.cat([order[:0], *order.split(size)[ranks.rank :: ranks.count]])
    for images, labels, places in split.batches(order, size, device):
        yield arranged(images, model.backbone), labels, places


def lot(split: Split) -> int:
    """How many images scoring takes at a time."""
    return max(SCORING_BATCH // (split.frames or 1), 1)


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

    Processes that work together (`engram.backbone.ranks`) take batches in turn, but where ``confusions`` are asked for.

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
    found: list[list[float]] = []
    ranks = current() if confusions is None else None
    for images, labels, _ in shown(model, split, device, ranks=ranks):
        with autocast(device, precision):
            logits = model(images).float()
        labels = labels if targets is None else targets.to(labels.device)[labels]
        right = int((logits.argmax(1) == labels).sum())
        found.append([right, float(F.cross_entropy(logits, labels, reduction="sum"))])
        if confusions is not None:
            confusions.add(images, labels, logits)
    model.train(training)
    if ranks is not None:
        found = ranks.in_turn(found, -(-len(split) // lot(split)), 2)
    right, loss = sum(each for each, _ in found), sum(each for _, each in found)
    return {"accuracy": right / len(split), "loss": loss / len(split), "images": float(len(split))}
