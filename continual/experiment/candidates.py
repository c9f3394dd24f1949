"""Which strengths of a penalty to try, and which of them to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engram.continual.regularisation.penalty import LEAST_EFFECT

FURTHER = 5
"""How many decades may be tried beside those to begin with."""


@dataclass(frozen=True)
class Tried:
    """What a strength came to on the validation images of the first tasks; ``accuracy`` is nan where it diverged."""

    strength: float
    accuracy: float
    effect: float | None

    @property
    def rank(self) -> tuple[float, float]:
        """A key to compare by: greater is better; of equal accuracies the weaker penalty's is greater."""
        return (-1.0 if math.isnan(self.accuracy) else self.accuracy, -self.strength)


def upcoming(tried: Sequence[Tried], decades: Sequence[float]) -> float | None:
    """The strength to try next; None when all of interest are known.

    First none at all, then the ``decades``, then those beyond the best one where it is the last at either end:
    downwards while the penalty has an effect, upwards also while it has none.

    >>> upcoming([Tried(0.0, 0.5, 0.0), Tried(1.0, 0.6, 0.1), Tried(10.0, 0.7, 0.3)], (1.0, 10.0))
    100.0
    """
    done = {each.strength for each in tried}
    for strength in (0.0, *decades):
        if strength not in done:
            return strength
    real = sorted((each for each in tried if each.strength), key=lambda each: each.strength)
    low, high, top = real[0], real[-1], max(real, key=lambda each: each.rank)
    if len(real) >= len(decades) + FURTHER:
        return None
    if not math.isnan(high.accuracy) and (top is high or not _acts(high)):
        return float(f"{high.strength * 10:.6g}")
    return float(f"{low.strength / 10:.6g}") if top is low and _acts(low) else None


def best(tried: Sequence[Tried], images: int) -> Tried:
    """The one to go on with: the weakest penalty whose accuracy is less than a standard error below the highest.

    The error is that of the highest as a share of so many validation images. What seems best on few tasks is often too
    strong for many, and what is as good within the error leaves more room to learn.

    Source: the rule of one standard error, Breiman et al. 1984, "Classification and regression trees", section 3.4.3.

    >>> tried = [Tried(10.0, 0.70, 0.1), Tried(100.0, 0.785, 0.4), Tried(1000.0, 0.79, 1.0)]
    >>> best(tried, 400).strength, best(tried, 40_000).strength
    (100.0, 1000.0)
    """
    real = [each for each in tried if each.strength]
    top = max(real, key=lambda each: each.rank)
    if math.isnan(top.accuracy):
        return top
    error = math.sqrt(top.accuracy * (1 - top.accuracy) / images)
    return min((each for each in real if each.accuracy >= top.accuracy - error), key=lambda each: each.strength)


def _acts(tried: Tried) -> bool:
    return tried.effect is None or tried.effect >= LEAST_EFFECT
