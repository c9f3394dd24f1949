"""The features of a whole split, computed once: episodes are rows of a table."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engram.backbone.data.sets import MemorySplit, Split
from engram.backbone.measures.scoring import SCORING_BATCH
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import arranged

GATHERED_BYTES = 2**30
"""Splits whose images take no more are held in memory as they come out."""


@dataclass
class Table:
    """The features of a split, filled row after row.

    In evaluation mode BatchNorm uses what it learned in training, so that no image's features depend on another's.

    Attributes:
        rows: [N, F] float32 on the device; those from ``done`` on are yet to come.
        done: how many rows are there.
    """

    split: Split
    device: str
    rows: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    done: int = 0

    @property
    def whole(self) -> bool:
        return self.done == len(self.split)

    @torch.no_grad()  # heads may take gradients of what they make of them
    def fill(self, model: Classifier, seconds: float = float("inf")) -> None:
        """Go on for about so long; ``model``: on the device, in evaluation mode."""
        began = time.perf_counter()
        size = max(SCORING_BATCH // (self.split.frames or 1), 1)
        rest = torch.arange(self.done, len(self.split))
        for images, _, _ in self.split.batches(rest, size, self.device):
            x = images if self.split.frames is not None else arranged(images, model.backbone)
            found = model.backbone(model.normalise(x)).float()
            if not self.done:
                self.rows = found.new_empty(len(self.split), found.shape[1])
            self.rows[self.done : self.done + len(found)] = found
            self.done += len(found)
            if time.perf_counter() - began > seconds:
                return

    def state_dict(self) -> dict[str, Tensor]:
        """The rows that are there."""
        return {"rows": self.rows[: self.done]}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        self.done = len(saved["rows"])
        self.rows = torch.empty(len(self.split), saved["rows"].shape[1], device=self.device)
        self.rows[: self.done] = saved["rows"]


def features_of(model: Classifier, split: Split, device: str) -> Tensor:
    """The features of all images of a split, [N, F] float32 on the device.

    Args:
        model: on the device; it is left in the mode it is in.
        split: the images, in its own order.
        device: where to compute.
    """
    table, training = Table(split, device), model.training
    table.fill(model.eval())
    model.train(training)
    return table.rows


def gathered(split: Split) -> Split:
    """A split with all its images in one tensor, where they are the same in every pass and take little enough room.

    Images that are turned or decoded as they come take longer than a step of a small network.
    """
    size = len(split) * (split.frames or 1)
    for side in split.in_shape:
        size *= side
    if isinstance(split, MemorySplit) or size > GATHERED_BYTES:
        return split
    images = [found.clone() for found, _, _ in split.batches(torch.arange(len(split)), 1024, "cpu")]
    return MemorySplit(torch.cat(images), split.labels, split.columns)
