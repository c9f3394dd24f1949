"""What a search has found: proposals by their objectives, and the best of them, which alone are tested."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engram.backbone.contract import Direction, Metric, Scalar
from engram.benchmarks.compare.pareto import on_front
from engram.benchmarks.planning.search import TESTED
from engram.benchmarks.records.meaning import declared
from engram.benchmarks.records.trials import Record, Sweep


@dataclass(frozen=True)
class Candidate:
    """A proposal that is done with every seed. ``scores`` are the means of the objectives over seeds."""

    options: Mapping[str, Scalar]
    scores: Mapping[str, float]
    records: Sequence[Record]


@dataclass(frozen=True)
class Found:
    """What a search has found so far.

    Attributes:
        candidates: in the order of the search.
        chosen: the best one; of several objectives the Pareto front, best first by the first of them. None is
            better than those in anything without being worse in something.
    """

    objectives: Sequence[str]
    candidates: Sequence[Candidate]
    chosen: Sequence[Candidate]


def look_through(sweep: Sweep) -> Found:
    """What is found in a sweep that is a search."""
    cells: dict[str, list[Record]] = {}
    for record in sweep.records:
        cells.setdefault(json.dumps(record.options, sort_keys=True), []).append(record)
    candidates: list[Candidate] = []
    for records in cells.values():
        if len(records) == len(sweep.seeds) and all(record.status == "done" for record in records):
            means = {name: _mean(records, name) for name in sweep.objectives}
            candidates.append(Candidate(records[0].options, means, records))
    experiment = next((record.experiment for record in sweep.records if record.experiment != "?"), "?")
    return Found(sweep.objectives, candidates, _best(candidates, sweep.objectives, declared(experiment)))


def _best(
    candidates: Sequence[Candidate], objectives: Sequence[str], promised: Mapping[str, Metric]
) -> list[Candidate]:
    ways: list[Direction] = [promised[name].direction if name in promised else "max" for name in objectives]
    points = [[candidate.scores[name] for name in objectives] for candidate in candidates]
    front = [each for each, best in zip(candidates, on_front(points, ways), strict=True) if best]
    if not objectives:
        return []
    front.sort(key=lambda each: each.scores[objectives[0]], reverse=ways[0] == "max")
    return front[:1] if len(objectives) == 1 else front


def _mean(records: Sequence[Record], name: str) -> float:
    return math.fsum(record.metrics.get(name, math.nan) for record in records) / len(records)


def tested(experiment: str, names: Sequence[str]) -> list[str]:
    """Those metrics that look at test images, by which nothing is chosen."""
    promised = declared(experiment)
    return [name for name in names if name in promised and promised[name].split in TESTED]
