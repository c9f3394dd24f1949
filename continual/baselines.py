"""The two ends of the scale: doing nothing, and having everything."""

from __future__ import annotations

import torch
from torch import Tensor

from backbone.data.sets import Split
from continual.strategy import Strategy
from continual.streams import Stream, Task


class Finetune(Strategy):
    """Train on, whatever becomes of the earlier tasks: the lower bound."""


class Joint(Strategy):
    """Train on the images of all tasks so far: the upper bound, which needs all data for ever."""

    def training_data(self, stream: Stream, task: Task) -> tuple[Split, Tensor | None]:
        splits = [stream.task(index).train for index in range(task.index)] + [task.train]
        everything = splits[0]
        for split in splits[1:]:
            everything = everything.and_also(split)
        sizes = torch.tensor([len(split) for split in splits])
        return everything, torch.arange(len(splits)).repeat_interleave(sizes)
