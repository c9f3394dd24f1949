"""Stopping as soon as the answer is settled: accuracy against mean steps, for every network with more than one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from engram.backbone.contract import Figure, Row
from engram.backbone.errors import must

if TYPE_CHECKING:
    from torch import Tensor

Criterion = Literal["confidence", "entropy", "divergence"]
"""What is looked at after a step. confidence: the largest softmax probability; entropy: that of the softmax, in nats;
divergence: of the softmax from that of the step before, KL(p_t || p_{t-1}) in nats."""
THRESHOLDS: Mapping[Criterion, Sequence[float]] = {
    "confidence": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999),
    "entropy": (2.0, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01),
    "divergence": (0.3, 0.1, 0.05, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4),
}
"""Where a network may stop by each criterion, from quick and rash to slow and sure."""
KEPT = 0.99
"""The share of the accuracy of all steps that stopping early is to keep."""
REPORTED = ("accuracy", "mean_steps", "share_of_steps")
"""What of the fewest steps that keep it becomes metrics."""
_RULES: Mapping[Criterion, str] = {
    "confidence": "in (0, 1]",
    **dict.fromkeys(("entropy", "divergence"), "finite numbers of nats above 0"),
}


class Stop(NamedTuple):
    """What stopping at one threshold comes to; ``threshold`` is None where every image takes all steps."""

    threshold: float | None
    accuracy: float
    mean_steps: float


class ExitScores:
    """Counts over images of a network that stops once it is sure; whole numbers, whatever the batches' sizes.

    By each criterion, and for each of its thresholds, the network stops at the first of ``steps`` at which the
    confidence is at least the threshold, or the entropy or the divergence at most; and at the last of them in any case.
    It may look only at ``steps``: with few of them it stops later. A divergence is from the one of ``steps`` before,
    so that the first of them has none.

    Args:
        steps: ascending step numbers at which it may stop.
        thresholds: of the criteria that are wanted; confidences are in (0, 1], entropies and divergences in nats.
        beforehand: steps every image takes before the first of these, wherever it stops (a pre-simulation);
            ``mean_steps`` has them.

    Attributes:
        images, finally_correct: how many were scored, and are right after all steps.
        correct, used, early: for each criterion one count per threshold: right answers, steps used, images stopped
            before the last step.

    Raises:
        UserError: no step, steps that do not ascend from 1, or a threshold that its criterion cannot have.

    Source: entropy: Teerapittayanon et al. 2016 (arXiv 1709.01686), of a recurrent network Spoerer et al. 2020
    (doi 10.1371/journal.pcbi.1008215); the largest probability, of a spiking network: Li et al. 2023 (arXiv
    2304.01230), SEENN-I.
    """

    def __init__(
        self, steps: Sequence[int], thresholds: Mapping[Criterion, Sequence[float]] = THRESHOLDS, beforehand: int = 0
    ) -> None:
        if not steps or steps[0] < 1 or any(a >= b for a, b in pairwise(steps)):
            raise must("steps", "ascending numbers from 1 on", list(steps), "Give each step once, in order.")
        for criterion, values in thresholds.items():
            most = 1 if criterion == "confidence" else math.nextafter(math.inf, 0)
            if not values or not all(0 < value <= most for value in values):
                remedy = f"{THRESHOLDS[criterion][-3]} is usual."
                raise must(f"thresholds of {criterion}", _RULES[criterion], list(values), remedy)
        self.steps, self.beforehand = list(steps), beforehand
        self.thresholds: dict[Criterion, list[float]] = {name: list(values) for name, values in thresholds.items()}
        self.images = self.finally_correct = 0
        self.correct, self.used, self.early = (self._zeros() for _ in range(3))

    def _zeros(self) -> dict[Criterion, list[int]]:
        return {criterion: [0] * len(values) for criterion, values in self.thresholds.items()}

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits: [K, B, classes] after each of ``steps``, labels: [B] int64."""
        if len(logits) != len(self.steps):
            raise must("logits", f"given at all of the {len(self.steps)} steps", len(logits), "Use `logits_at`.")
        self.images += len(labels)
        told = logits.double().log_softmax(-1)
        right, steps = logits.argmax(-1) == labels, labels.new_tensor(self.steps)
        self.finally_correct += int(right[-1].sum())
        for criterion, values in self.thresholds.items():
            sure, bounds = _sureness(criterion, told), told.new_tensor(values).view(-1, 1, 1)
            stops = sure >= (bounds if criterion == "confidence" else -bounds)
            stops[:, -1] = True
            first = stops.int().argmax(1)  # the first of equal maxima: [thresholds, B]
            counts = (right.gather(0, first), steps[first], first < len(self.steps) - 1)
            for kept, found in zip((self.correct, self.used, self.early), counts, strict=True):
                kept[criterion] = [a + b for a, b in zip(kept[criterion], found.sum(1).tolist(), strict=True)]

    def stops(self, criterion: Criterion) -> list[Stop]:
        """What stopping at each threshold of a criterion comes to, and at last what all steps do."""
        counted = zip(self.thresholds[criterion], self.correct[criterion], self.used[criterion], strict=True)
        return [
            *(Stop(at, right / self.images, self.beforehand + used / self.images) for at, right, used in counted),
            Stop(None, self.finally_correct / self.images, float(self.beforehand + self.steps[-1])),
        ]

    def rows(self) -> list[Row]:
        """One row per criterion and threshold: both, accuracy, mean_steps, share_stopped_early (fractions)."""
        return [
            {"criterion": criterion, **stop._asdict(), "share_stopped_early": early / self.images}
            for criterion in self.thresholds
            for stop, early in zip(self.stops(criterion), self.early[criterion], strict=False)  # all steps: no stopping
        ]

    def state_dict(self) -> dict[str, Any]:
        counts = {"correct": self.correct, "used": self.used, "early": self.early}
        return {"images": self.images, "finally_correct": self.finally_correct, **counts}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.images, self.finally_correct = int(saved["images"]), int(saved["finally_correct"])
        self.correct, self.used, self.early = (
            {criterion: list(saved[name][criterion]) for criterion in self.thresholds}
            for name in ("correct", "used", "early")
        )


def _sureness(criterion: Criterion, told: Tensor) -> Tensor:
    """told: [K, B, classes] logarithms of probabilities -> [K, B], larger where the network is surer."""
    if criterion == "confidence":
        return told.amax(-1).exp()
    p = told.exp()
    if criterion == "entropy":
        return (p * told).masked_fill(p == 0, 0).sum(-1)
    found = told.new_full(told.shape[:2], -math.inf)
    found[1:] = -(p[1:] * (told[1:] - told[:-1])).masked_fill(p[1:] == 0, 0).sum(-1)
    return found


def fewest_steps(held: ExitScores, scored: ExitScores) -> list[Row]:
    """The fewest mean steps that keep `KEPT` of the accuracy of all steps, by each criterion; the fewest come first.

    Where no threshold keeps as much, every image takes all steps.

    Args:
        held: of the images on which thresholds are chosen.
        scored: of the images that are reported on, with the same steps and thresholds.

    Returns: rows of criterion, threshold (None: all steps), ``accuracy``, ``accuracy_kept`` (share of that of all
    steps), ``mean_steps`` and ``share_of_steps``, and of the images chosen on ``validation_accuracy`` and
    ``validation_mean_steps``.
    """
    rows: list[Row] = []
    for criterion in scored.thresholds:
        stops = list(zip(held.stops(criterion), scored.stops(criterion), strict=True))
        full, (_, end) = stops[-1][0].accuracy, stops[-1]
        keeping = [pair for pair in stops if pair[0].accuracy >= KEPT * full]
        chosen, found = min(keeping, key=lambda pair: (pair[0].mean_steps, -pair[0].accuracy))
        rows.append(
            {
                "criterion": criterion,
                "threshold": found.threshold,
                "accuracy": found.accuracy,
                "accuracy_kept": found.accuracy / end.accuracy if end.accuracy else None,
                "mean_steps": found.mean_steps,
                "share_of_steps": found.mean_steps / end.mean_steps,
                "validation_accuracy": chosen.accuracy,
                "validation_mean_steps": chosen.mean_steps,
            }
        )
    return sorted(rows, key=lambda row: float(row["validation_mean_steps"] or 0))


def figure(rows: Sequence[Row], fixed: Sequence[Row] = ()) -> Figure:
    """Accuracy against mean steps.

    Args:
        rows: from `ExitScores.rows`, or of that form.
        fixed: rows of ``steps`` and ``accuracy`` (`engram.backbone.measures.anytime.StepScores.rows`), to compare with
            stopping every image at the same step.
    """
    series = {
        f"stops by {criterion}": found
        for criterion in get_args(Criterion)
        if (found := _points([row for row in rows if row["criterion"] == criterion], "mean_steps"))
    }
    if fixed:
        series["stops every image at the same step"] = _points(fixed, "steps")
    return Figure(
        title="Early exit",
        x_label="mean steps per image",
        y_label="accuracy",
        series=series,
        x_scale="log2",
    )


def _points(rows: Sequence[Row], x: str) -> list[tuple[float, float]]:
    return sorted((float(row[x] or 0), float(row["accuracy"] or 0)) for row in rows)
