"""Which of several choices no other one beats, where there is more than one thing to be good at."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engram.backbone.contract import Direction


def on_front(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[bool]:
    """For each point whether no other is as good in everything and better in something: the Pareto front.

    Equal points are on it together. A point with a value that is not a number is not on it, and keeps no other off.

    Args:
        points: A value of each objective for each point.
        directions: Which end of each objective is the better one.

    >>> on_front([(0.9, 10.0), (0.8, 10.0), (0.8, 5.0)], ["max", "min"])
    [True, False, True]

    Source: Kung, Luccio and Preparata, On Finding the Maxima of a Set of Vectors, J. ACM 22 (1975), for the order in
    which points are looked at: what comes later, sorted from the best on, never beats what came before.
    """
    costs = [
        tuple(-value if way == "max" else value for value, way in zip(each, directions, strict=True)) for each in points
    ]
    known = sorted({cost for cost in costs if not any(map(math.isnan, cost))})
    best: set[tuple[float, ...]] = set()
    kept: list[tuple[float, ...]] = []
    lowest = math.inf
    for cost in known:
        if len(directions) <= 2:  # the first objective only grows: the last one decides
            beaten = bool(kept) and (len(directions) < 2 or cost[-1] >= lowest)
            lowest = min(lowest, cost[-1])
        else:
            beaten = any(all(a <= b for a, b in zip(other, cost, strict=True)) for other in kept)
        if not beaten:
            kept.append(cost)
            best.add(cost)
    return [cost in best for cost in costs]
