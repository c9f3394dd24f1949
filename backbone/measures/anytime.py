"""Accuracy against steps, for every network with more than one: spiking time, recurrence, event frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Figure, Row
from engram.backbone.data.sets import Split
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.readout import read_at


def logits_at(model: Classifier, features: Tensor, steps: Sequence[int]) -> Tensor:
    """features: [S, B, feature_dim] -> logits [len(steps), B, classes] after each of ``steps``."""
    return model.head(read_at(model.backbone, features, steps))


class StepScores:
    """Running sums of accuracy and loss after each of some steps; exact and independent of the batches' sizes.

    Attributes:
        images: how many were scored.
        correct: [K] int64, loss: [K] float64, both summed over images, on the CPU.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = list(steps)
        self.images = 0
        self.correct = torch.zeros(len(self.steps), dtype=torch.int64)
        self.loss = torch.zeros(len(self.steps), dtype=torch.float64)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits: [K, B, classes], labels: [B] int64."""
        self.images += len(labels)
        self.correct += (logits.argmax(-1) == labels).sum(1).cpu()
        repeated = labels.expand(len(self.steps), -1)
        losses = F.cross_entropy(logits.float().flatten(0, 1), repeated.flatten(), reduction="none")
        self.loss += losses.view(len(self.steps), -1).double().sum(1).cpu()

    def rows(self) -> list[Row]:
        """One row per step: steps, accuracy (fraction), loss (nat)."""
        scored = zip(self.steps, self.correct.tolist(), self.loss.tolist(), strict=True)
        return [{"steps": t, "accuracy": right / self.images, "loss": loss / self.images} for t, right, loss in scored]

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"images": self.images, "correct": self.correct, "loss": self.loss}

    def load_state_dict(self, saved: dict[str, Tensor | int]) -> None:
        self.images = int(saved["images"])
        self.correct, self.loss = torch.as_tensor(saved["correct"]), torch.as_tensor(saved["loss"])


@torch.inference_mode()
def accuracy_vs_steps(
    model: Classifier,
    split: Split,
    steps: Sequence[int],
    device: str,
    batch_size: int,
    precision: Literal["bf16", "fp32"] = "fp32",
) -> list[Row]:
    """Score a network that stops after each of ``steps``.

    Args:
        model: on ``device``, in evaluation mode; its backbone may be of any kind.
        split: labelled images.
        steps: ascending step numbers the network has.
        device: where to compute.
        batch_size: images at once.
        precision: bf16 runs under autocast.

    Returns: rows of steps, accuracy and loss.
    """
    scores = StepScores(steps)
    for images, labels, _ in split.batches(torch.arange(len(split)), batch_size, device):
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=precision == "bf16"):
            features = model.backbone.forward_steps(model.normalise(images))  # type: ignore[operator]
            scores.add(logits_at(model, features, steps), labels)
    return scores.rows()


def figure(
    rows: Sequence[Row],
    y_label: str = "test accuracy",
    network: str = "the network",
    lines: Mapping[str, float] | None = None,
) -> Figure:
    """Accuracy against steps.

    Args:
        rows: with ``steps`` and ``accuracy``, as of `StepScores.rows`.
        y_label: whose accuracy.
        network: what has these steps.
        lines: accuracies of others, to compare with.
    """
    return Figure(
        title="Accuracy against steps",
        x_label="steps",
        y_label=y_label,
        series={network: [(float(row["steps"] or 0), float(row["accuracy"] or 0)) for row in rows]},
        lines=lines or {},
        x_scale="log2",
    )
