"""Stopping as soon as the network is sure: accuracy against mean steps, for every network with more than one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from engram.backbone.contract import Figure, Row
from engram.backbone.errors import must

if TYPE_CHECKING:
    from torch import Tensor

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
"""Largest class probabilities at which a network may stop; a table from quick and rash to slow and sure."""


class ExitScores:
    """Counts over images of a network that stops when it is confident; whole numbers, whatever the batches' sizes.

    For each confidence c the network stops at the first of ``steps`` at which the largest softmax probability is at
    least c, and at the last of them in any case. It may look only at ``steps``: with few of them it stops later.

    Args:
        steps: ascending step numbers at which it may stop.
        confidences: in (0, 1].
        beforehand: steps every image takes before the first of these, wherever it stops (a pre-simulation);
            ``mean_steps`` has them.

    Attributes:
        images: how many were scored.
        correct, used, early: one count per confidence: right answers, steps used, images stopped before the last step.

    Raises:
        UserError: no step, steps that do not ascend from 1, or a confidence outside (0, 1].

    Source: confidence as the criterion: Teerapittayanon et al. 2016 (arXiv 1709.01686), with the entropy of the output;
    the largest probability, of a spiking network: Li et al. 2023 (arXiv 2304.01230), SEENN-I.
    """

    def __init__(self, steps: Sequence[int], confidences: Sequence[float] = CONFIDENCES, beforehand: int = 0) -> None:
        if not steps or steps[0] < 1 or any(a >= b for a, b in pairwise(steps)):
            raise must("steps", "ascending numbers from 1 on", list(steps), "Give each step once, in order.")
        if not confidences or not all(0 < c <= 1 for c in confidences):
            raise must("confidences", "in (0, 1]", list(confidences), "0.9 stops at nine parts in ten.")
        self.steps, self.confidences, self.beforehand = list(steps), list(confidences), beforehand
        self.images = 0
        self.correct, self.used, self.early = ([0] * len(self.confidences) for _ in range(3))

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits: [K, B, classes] after each of ``steps``, labels: [B] int64."""
        if len(logits) != len(self.steps):
            raise must("logits", f"given at all of the {len(self.steps)} steps", len(logits), "Use `logits_at`.")
        self.images += len(labels)
        sure, answers = logits.double().softmax(-1).max(-1)
        right, steps = answers == labels, labels.new_tensor(self.steps)
        for place, confidence in enumerate(self.confidences):
            stops = sure >= confidence
            stops[-1] = True
            first = stops.int().argmax(0, keepdim=True)  # the first of equal maxima
            self.correct[place] += int(right.gather(0, first).sum())
            self.used[place] += int(steps[first].sum())
            self.early[place] += int((first < len(self.steps) - 1).sum())

    def rows(self) -> list[Row]:
        """One row per confidence: confidence, accuracy (fraction), mean_steps, share_stopped_early (fraction)."""
        counts = zip(self.confidences, self.correct, self.used, self.early, strict=True)
        return [
            {
                "confidence": confidence,
                "accuracy": correct / self.images,
                "mean_steps": self.beforehand + used / self.images,
                "share_stopped_early": early / self.images,
            }
            for confidence, correct, used, early in counts
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images, "correct": self.correct, "used": self.used, "early": self.early}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.images = int(saved["images"])
        self.correct, self.used, self.early = (list(saved[name]) for name in ("correct", "used", "early"))


def figure(rows: Sequence[Row], fixed: Sequence[Row] = ()) -> Figure:
    """Accuracy against mean steps.

    Args:
        rows: from `ExitScores.rows`, or of that form.
        fixed: rows of ``steps`` and ``accuracy`` (`engram.backbone.measures.anytime.StepScores.rows`), to compare with
        stopping every
            image at the same step.
    """
    series = {"stops when confident": _points(rows, "mean_steps")}
    if fixed:
        series["stops every image at the same step"] = _points(fixed, "steps")
    return Figure(
        title="Early exit by confidence",
        x_label="mean steps per image",
        y_label="accuracy",
        series=series,
        x_scale="log2",
    )


def _points(rows: Sequence[Row], x: str) -> list[tuple[float, float]]:
    return sorted((float(row[x] or 0), float(row["accuracy"] or 0)) for row in rows)
