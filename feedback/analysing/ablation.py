"""What a network loses when connections are switched off, or carry what belongs to another picture."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from engram.feedback.analysing.looking import Changed

ALL = "all"
_Z = 1.96  # 95 %


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
    """Accuracy that is lost on the same pictures, as a fraction, and its 95 % interval."""

    value: float
    low: float
    high: float


def lost(before: Tensor, after: Tensor) -> Lost:
    """How much less is right after than before.

    Args:
        before, after: [..., N] bool, which of N pictures are right; what is in front of N (several corruptions of a
            picture) is averaged, so that a picture counts once.

    Source: for one answer a picture, Agresti and Min 2005 (doi 10.1002/sim.1781): a half is added to each of the four
    counts of a pair. For several the interval is made in the same way, of mean differences.
    """
    each = (before.double() - after.double()).view(-1, before.shape[-1]).mean(0)
    count = len(each) + 2
    middle = float(each.sum()) / count
    spread = math.sqrt(((float(each.square().sum()) + 1) / count - middle**2) / count)
    return Lost(float(each.mean()), middle - _Z * spread, middle + _Z * spread)
