"""The features of a whole split, computed once: episodes are rows of a table."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engram.backbone.data.sets import MemorySplit, Split
from engram.backbone.measures.features import in_batches
from engram.backbone.nets.classifier import Classifier

GATHERED_BYTES = 2**30
"""Splits whose images take no more are held in memory as they come out."""


@dataclass
class Table:
    """The features of a split, filled row after row.

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

    def fill(self, model: Classifier, seconds: float = float("inf")) -> None:
        """Go on for about so long; ``model``: on the device, in evaluation mode."""
        began = time.perf_counter()
        for found in in_batches(model, self.split, self.device, self.done):
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
