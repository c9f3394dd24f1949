"""What a network loses when connections are switched off, or carry what belongs to another picture."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from engram.backbone.measures.bootstrap import paired_bootstrap
from engram.feedback.analysing.looking import ALL, Changed


class Variant(NamedTuple):
    """Connections that are changed: one or `ALL`, in one step (from 1) or, where ``step`` is None, in all of them.

    They are switched off, or carry what they carry for another picture.
    """

    connection: str
    step: int | None
    exchanged: bool = False

    def changed(self, connections: Collection[str]) -> Changed:
        """What a tap does."""
        names = connections if self.connection == ALL else (self.connection,)
        return Changed(names, None if self.step is None else (self.step,), self.exchanged)


def variants(connections: Mapping[str, Sequence[int]]) -> list[Variant]:
    """Each connection switched off in each of its steps and in all of them, and exchanged in all of them.

    All connections together are changed likewise where there are several.

    >>> [(each.step, each.exchanged) for each in variants({"layer2>layer1": [2, 3]})]
    [(2, False), (3, False), (None, False), (None, True)]
    """
    steps = dict(connections)
    if len(steps) > 1:
        steps[ALL] = sorted({step for each in connections.values() for step in each})
    return [
        each
        for name, at in steps.items()
        for each in (*(Variant(name, step) for step in (*at, None)), Variant(name, None, exchanged=True))
    ]


class Lost(NamedTuple):
    """Accuracy that is lost on the same pictures, in points, and its 95 % interval over pictures."""

    points: float
    low: float
    high: float


def lost(before: Tensor, after: Tensor) -> list[Lost]:
    """How much less is right after than before. before: [N], after: [K, N], shares in which pictures are right."""
    found = paired_bootstrap((before - after).T)
    return [Lost(*(100 * each for each in row)) for row in torch.stack(found, 1).tolist()]
