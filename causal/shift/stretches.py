"""Passes over images, cut into stretches of one length: a training that is so many steps long."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engram.backbone.contract import Sampler
from engram.backbone.data.sets import Split


@dataclass(frozen=True)
class Stretches:
    """A sampler that shows passes of another one after another, so many images in what counts as an epoch.

    Args:
        passes: what is shown, pass after pass.
        size: images in a stretch.
    """

    passes: Sampler
    size: int

    def rows(self, data: Split) -> int:
        return self.size

    def order(self, data: Split, seed: int, epoch: int) -> Tensor:
        first, before = divmod(epoch * self.size, self.passes.rows(data))
        found = list[Tensor]()
        while sum(map(len, found)) < before + self.size:
            found.append(self.passes.order(data, seed, first + len(found)))
        return torch.cat(found)[before : before + self.size]
