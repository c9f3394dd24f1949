"""The two ends of the scale: doing nothing, and having everything."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engram.backbone.contract import Task, Tasks
from engram.backbone.data.sets import Split
from engram.continual.strategy import StrategyBase


class Finetune(StrategyBase):
    """Train on, whatever becomes of the earlier tasks: the lower bound."""

    recordable = True
    reach = "own"


class Joint(StrategyBase):
    """Train on the images of all tasks so far: the upper bound, which needs all data for ever."""

    recordable = True
    reach = "own"
    kept = 0
    """Images of the tasks so far."""

    def training_data(self, stream: Tasks, task: Task) -> tuple[Split, Tensor | None]:
        splits = [stream.task(index).train for index in range(task.index)] + [task.train]
        everything = splits[0]
        for split in splits[1:]:
            everything = everything.and_also(split)
        sizes = torch.tensor([len(split) for split in splits])
        self.kept = len(everything)
        return everything, torch.arange(len(splits)).repeat_interleave(sizes)

    def samples(self) -> int:
        return self.kept

    def bytes(self) -> int:
        """Images as bytes, and a label of eight."""
        return self.kept * ((self.setting.frames or 1) * math.prod(self.setting.in_shape) + 8)
