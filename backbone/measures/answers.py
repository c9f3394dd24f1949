"""What a network with steps answers: accuracy against steps and early exit, from one run on every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Delayed, Figure, Presimulating, Row
from engram.backbone.data.sets import Split
from engram.backbone.measures import anytime, early_exit
from engram.backbone.measures.anytime import StepScores, logits_at
from engram.backbone.measures.early_exit import ExitScores
from engram.backbone.measures.points import curve_steps, exit_steps
from engram.backbone.measures.scoring import shown
from engram.backbone.nets.classifier import Classifier


class Answers:
    """Sums over images of what a network answers after each of some steps, and when it stops as soon as it is sure.

    Args:
        model: in evaluation mode; it does not change.
        steps: how many steps an image takes.

    Attributes:
        points: the numbers of steps after which it is scored.
        scores: after each of them.
        exits: when it stops as soon as it is sure.
    """

    def __init__(self, model: Classifier, steps: int) -> None:
        net = model.backbone
        self.model, self.points = model, curve_steps(steps)
        self.beforehand = net.pre_simulation if isinstance(net, Presimulating) else 0
        delay = net.delay if isinstance(net, Delayed) else 0
        stops = [step for step in exit_steps(steps) if step > delay] or [steps]  # earlier ones are no answers yet
        self.scores, self.exits = StepScores(self.points), ExitScores(stops, beforehand=self.beforehand)

    @property
    def images(self) -> int:
        """How many images were added."""
        return self.scores.images

    def add(self, features: Tensor, labels: Tensor) -> None:
        """features: [S, B, feature_dim] after each step; labels: [B] int64, of the network's outputs."""
        self.scores.add(logits_at(self.model, features, self.points), labels)
        self.exits.add(logits_at(self.model, features, self.exits.steps), labels)

    def tables(self, held: Answers | None = None) -> dict[str, list[Row]]:
        """``accuracy_vs_steps`` and ``early_exit``; with columns for validation images where ``held`` has seen some.

        A number of steps, or where to stop, is chosen by these columns and reported with the others: so does
        ``fewest_steps`` (`engram.backbone.measures.early_exit.fewest_steps`), which is there with these columns alone.
        """
        curve, exits = self.scores.rows(), self.exits.rows()
        if held is None or not held.images:
            return {"accuracy_vs_steps": curve, "early_exit": exits}
        return {
            "accuracy_vs_steps": beside(curve, held.scores.rows(), ("accuracy", "loss")),
            "early_exit": beside(exits, held.exits.rows(), ("accuracy", "mean_steps")),
            "fewest_steps": early_exit.fewest_steps(held.exits, self.exits),
        }

    def metrics(self, held: Answers | None, network: str = "") -> dict[str, float]:
        """The first row of ``fewest_steps`` as metrics (`engram.backbone.experiments.configs.early_exit`).

        There are none where ``held`` has seen no image: a threshold chosen on the images that it is reported on
        promises too much. ``network`` is the name of the one meant where a trial has several.
        """
        if held is None or not held.images:
            return {}
        first = early_exit.fewest_steps(held.exits, self.exits)[0]
        prefix = f"{network}/test/early_exit_".lstrip("/")
        return {prefix + name: float(first[name] or 0) for name in early_exit.REPORTED}

    def figures(
        self, y_label: str = "test accuracy", network: str = "the network", lines: Mapping[str, float] | None = None
    ) -> dict[str, Figure]:
        """``accuracy_vs_steps``, beside the accuracies ``lines`` of other networks, and ``early_exit``."""
        rows = self.scores.rows()
        taken: list[Row] = [{**row, "steps": self.beforehand + t} for row, t in zip(rows, self.points, strict=True)]
        return {
            "accuracy_vs_steps": anytime.figure(rows, y_label, network, lines),
            "early_exit": early_exit.figure(self.exits.rows(), taken),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self.scores.state_dict(), "exits": self.exits.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.scores.load_state_dict(saved["scores"])
        self.exits.load_state_dict(saved["exits"])


def beside(rows: Sequence[Row], held: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """Rows with some columns of those for validation images, which are called ``validation_COLUMN``."""
    pairs = zip(rows, held, strict=True)
    return [{**row, **{f"validation_{column}": other[column] for column in columns}} for row, other in pairs]


def steps_taken(model: Classifier, split: Split) -> int:
    """How many steps the network takes for an image of a split."""
    return split.frames or model.backbone.steps  # type: ignore[return-value]


@torch.inference_mode()
def answers(model: Classifier, split: Split, device: str, targets: Tensor | None = None) -> Answers:
    """Run a network on every image of a split, in fp32.

    Args:
        model: on ``device``, in evaluation mode.
        split: labelled images, or sequences of frames.
        device: where to compute.
        targets: [K] int64, the model's class for each of the split's K classes; None when they are the same.
    """
    found = Answers(model, steps_taken(model, split))
    for images, labels, _ in shown(model, split, device):
        x = model.normalise(images)
        found.add(model.backbone.forward_steps(x), labels if targets is None else targets.to(labels.device)[labels])  # type: ignore[operator]
    return found
