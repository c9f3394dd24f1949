"""Parameters that an optimizer steps and that must not move, or not all the way."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from engram.backbone.training.optim import lists
from engram.continual.strategy import total_bytes


class Hold:
    """Holds parameters around a step, whatever gradients, momentum and decay make of them.

    Args:
        pairs: parameters, each with how much of a step it may take, in [0, 1] and shaped like it.
    """

    def __init__(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        pairs = list(pairs)
        self.parameters = [p for p, _ in pairs]
        self.free = [free.to(p.dtype).expand_as(p).contiguous() for p, free in pairs]
        self.before: list[Tensor] = []

    @torch.no_grad()
    def take(self) -> None:
        """The parameters are about to be stepped."""
        self.before = [p.clone() for p in self.parameters]

    @torch.no_grad()
    def put_back(self) -> None:
        """What must not move is as before, bit for bit: lerp at 0 and at 1 gives its ends."""
        lists._foreach_lerp_(self.before, self.parameters, self.free)
        lists._foreach_copy_(self.parameters, self.before)

    def bytes(self) -> int:
        return total_bytes([self.free, self.before])
