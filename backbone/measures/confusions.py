"""Which answers a classifier gave: per class, by its confidence, and the mistakes it was surest of, as figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from engram.backbone.contract import AnyFigure, Bars, Confusion, Pictures, Range, Scatter

MOST_CLASSES = 50
"""More are no picture any more."""
BINS = 10
MISTAKES = 8
_Z = 1.96  # 95 %


class Confusions:
    """Running counts over images.

    Args:
        classes: names of the network's outputs.
        keep: of the images with the surest wrong answers; 0 keeps none.
    """

    def __init__(self, classes: Sequence[str], keep: int = MISTAKES) -> None:
        self.classes, self.keep = list(classes), keep
        count = len(classes)
        self.confusion = torch.zeros(count, count, dtype=torch.int64) if count <= MOST_CLASSES else None
        self.bins = torch.zeros(BINS, 3, dtype=torch.float64)  # images, right ones, sum of confidences
        self.mistakes: list[tuple[float, int, int, Tensor]] = []  # confidence, label, answer, image

    def add(self, images: Tensor, labels: Tensor, logits: Tensor) -> None:
        """images: [B, C, H, W] or [B, T, C, H, W] as stored; labels: [B] int64, outputs; logits: [B, K]."""
        confidence, answers = (each.cpu() for each in logits.softmax(1).max(1))
        labels = labels.cpu()
        right = answers == labels
        if self.confusion is not None:
            size = len(self.confusion)
            self.confusion += torch.bincount(labels * size + answers, minlength=size**2).view(size, size)
        told = torch.stack([torch.ones_like(confidence), right, confidence], 1).double()
        self.bins.index_add_(0, (confidence * BINS).long().clamp(0, BINS - 1), told)
        if self.keep and images.ndim == 4 and images.shape[1] in (1, 3):
            self._remember(images, labels, answers, torch.where(right, -1.0, confidence))

    def _remember(self, images: Tensor, labels: Tensor, answers: Tensor, sureness: Tensor) -> None:
        """Keep the surest mistakes; ``sureness`` is negative where there is none."""
        values, places = sureness.topk(min(self.keep, len(sureness)))
        for value, i in zip(values.tolist(), places.tolist(), strict=True):
            if value >= 0:
                self.mistakes.append((value, int(labels[i]), int(answers[i]), images[i].cpu()))
        self.mistakes = sorted(self.mistakes, key=lambda found: -found[0])[: self.keep]

    def matrix(self, split: str) -> dict[str, AnyFigure]:
        """The confusion matrix on the images of a split, where it is no larger than one can see."""
        if self.confusion is None:
            return {}
        title = f"Confusion on {split} images"
        return {"confusion": Confusion(title=title, classes=self.classes, counts=self.confusion.tolist())}

    def figures(self, split: str) -> dict[str, AnyFigure]:
        """All figures: confusion, accuracy by class, accuracy against confidence, surest mistakes."""
        found = self.matrix(split) | {"reliability": self._reliability(split)}
        if self.confusion is not None:
            found["accuracy_by_class"] = self._by_class(self.confusion, split)
        if self.mistakes:
            found["mistakes"] = Pictures(
                title=f"Surest mistakes on {split} images",
                pictures=[as_picture(image) for *_, image in self.mistakes],
                captions=[
                    f"{self.classes[label]} taken for {self.classes[answer]}, {sure:.2f}"
                    for sure, label, answer, _ in self.mistakes
                ],
            )
        return found

    def _by_class(self, confusion: Tensor, split: str) -> Bars:
        counts = [(name, int(confusion[i, i]), int(confusion[i].sum())) for i, name in enumerate(self.classes)]
        counts = [(name, right, images) for name, right, images in counts if images]
        return Bars(
            title=f"Accuracy by class on {split} images, with 95 % intervals",
            x_label="class",
            y_label="accuracy",
            names=[name for name, *_ in counts],
            series={"accuracy": [right / images for _, right, images in counts]},
            ranges={"accuracy": [wilson(right, images) for _, right, images in counts]},
        )

    def _reliability(self, split: str) -> Scatter:
        rows = [(int(images), int(right), sure / images) for images, right, sure in self.bins.tolist() if images]
        return Scatter(
            title=f"Accuracy against confidence on {split} images, with 95 % intervals",
            x_label="mean confidence",
            y_label="accuracy",
            series={"images by confidence": [(sure, right / images) for images, right, sure in rows]},
            y_ranges={"images by confidence": [wilson(right, images) for images, right, _ in rows]},
            diagonal=True,
        )


def wilson(right: int, images: int) -> Range:
    """The 95 % interval of a fraction, after Wilson 1927.

    >>> [round(end, 4) for end in wilson(9, 10)]
    [0.5958, 0.9821]
    """
    share, square = right / images, _Z**2 / images
    middle = (share + square / 2) / (1 + square)
    reach = _Z / (1 + square) * math.sqrt(share * (1 - share) / images + square / (4 * images))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def as_picture(image: Tensor) -> Tensor:
    """image: [1 or 3, H, W], uint8 or between 0 and 1 -> [H, W] or [H, W, 3] uint8."""
    pixels = image if image.dtype == torch.uint8 else (image.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
