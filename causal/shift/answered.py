"""What a network answers, image by image, and what that comes to for groups and environments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Row
from engram.backbone.data.columns import Column, numbered
from engram.backbone.data.sets import Split
from engram.backbone.hardware import autocast
from engram.backbone.measures.confusions import wilson
from engram.backbone.measures.scoring import shown
from engram.backbone.nets.classifier import Classifier


@dataclass(frozen=True)
class Counts:
    """How many of some images are answered rightly."""

    right: int
    images: int

    @property
    def accuracy(self) -> float:
        return self.right / self.images

    def row(self) -> Row:
        """Images, accuracy, and the ends of its 95 % interval, Wilson's."""
        low, high = wilson(self.right, self.images)
        return {"images": self.images, "accuracy": self.accuracy, "low": low, "high": high}


@dataclass(frozen=True)
class Answered:
    """Of every image of a split whether it is answered rightly, [N] bool; and the mean cross-entropy (nat)."""

    split: Split
    right: Tensor
    loss: float

    @property
    def counts(self) -> Counts:
        """Of all images."""
        return Counts(int(self.right.sum()), len(self.right))

    def by(self, column: str) -> dict[str, Counts]:
        """Of the images of each value of a column, by its name; nothing where the split lacks it."""
        return by_value(self.right, self.split.columns[column]) if column in self.split.columns else {}


def by_value(right: Tensor, column: Column) -> dict[str, Counts]:
    """Counts for each value of a column.

    >>> by_value(torch.tensor([True, False, True]), ("red", "red", "green"))
    {'green': Counts(right=1, images=1), 'red': Counts(right=1, images=2)}
    """
    numbers, names = numbered(column)
    images = torch.bincount(numbers, minlength=len(names)).tolist()
    each = torch.bincount(numbers[right], minlength=len(names)).tolist()
    return {name: Counts(each[i], images[i]) for i, name in enumerate(names)}


def worst(counts: Mapping[str, Counts]) -> float:
    """The lowest accuracy of any group."""
    return min(each.accuracy for each in counts.values())


def mean_of(counts: Mapping[str, Counts]) -> float:
    """The mean of accuracies, in which all groups or environments weigh the same."""
    return sum(each.accuracy for each in counts.values()) / len(counts)


def adjusted(tested: Mapping[str, Counts], trained: Mapping[str, Counts]) -> float | None:
    """The mean of the groups' accuracies, weighed by their shares of the training images.

    It is what an average accuracy would be on test images with as many of each group as in training, where a test set
    has them in other shares. None where no group that is tested was trained on.

    Source: Sagawa et al. 2020 (arXiv 1911.08731), section 3, for Waterbirds.

    >>> adjusted({"a": Counts(9, 10), "b": Counts(1, 10)}, {"a": Counts(0, 90), "b": Counts(0, 10)})
    0.82
    """
    weights = {name: trained[name].images for name in tested if name in trained}
    total = sum(weights.values())
    return sum(tested[name].accuracy * weight for name, weight in weights.items()) / total if total else None


@torch.inference_mode()
def answered(model: Classifier, split: Split, device: str, precision: str = "fp32") -> Answered:
    """Show a network every image of a split, in evaluation mode.

    Args:
        model: on ``device``; it is left in the mode it is in.
        split: the images.
        device: where to compute.
        precision: "fp32" or "bf16" (autocast).
    """
    training = model.training
    model.eval()
    right, loss = torch.zeros(len(split), dtype=torch.bool), 0.0
    for images, labels, places in shown(model, split, device):
        with autocast(device, precision):  # type: ignore[arg-type]
            logits = model(images).float()
        right[places] = (logits.argmax(1) == labels).cpu()
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    model.train(training)
    return Answered(split, right, loss / len(split))
