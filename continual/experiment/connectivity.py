"""Whether the solutions of two tasks are connected: accuracy along the straight line between their weights.

Source: Mirzadeh et al. 2021 (arXiv 2010.04495), section 3, linear mode connectivity of sequential solutions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from engram.backbone.contract import Figure, Row, Scalar
from engram.continual.experiment.learner import Learner
from engram.continual.experiment.stream import Stream
from engram.continual.experiment.testing import test

Weights = Mapping[str, Tensor]


def snapshot(learner: Learner) -> dict[str, Tensor]:
    """A copy of the network's state, on the CPU: a stream keeps one for every task."""
    return {name: value.detach().to("cpu", copy=True) for name, value in learner.model.state_dict().items()}


def between(first: Weights, second: Weights, share: float) -> dict[str, Tensor]:
    """The state ``share`` of the way from the first to the second; counts are those of the nearer one."""
    near = first if share < 0.5 else second
    return {
        name: first[name].lerp(second[name], share) if first[name].is_floating_point() else near[name] for name in first
    }


def path(learner: Learner, stream: Stream, solutions: Sequence[Weights], points: int) -> list[Row]:
    """Accuracy on ``points`` places of every straight line from the solution of a task to that of the next.

    Rows: ``after`` (the task whose solution the line begins at), ``share`` of the way, ``earlier`` (mean accuracy on
    the tasks up to that one) and ``next`` (accuracy on the one after it). Running statistics of BatchNorm are
    interpolated as well. Gates (HAT) are those of the end of the stream. The network is put back afterwards.
    """
    model, kept, rows = learner.model, snapshot(learner), []
    for index, (first, second) in enumerate(pairwise(solutions)):
        for share in torch.linspace(0, 1, points).tolist():
            model.load_state_dict(between(first, second, share))
            old = [test(learner, stream.tests(j), j).accuracy for j in range(index + 1)]
            new = test(learner, stream.tests(index + 1), index + 1).accuracy
            rows.append({"after": index + 1, "share": share, "earlier": sum(old) / len(old), "next": new})
    model.load_state_dict(kept)
    return rows


def barrier(rows: Sequence[Row]) -> float:
    """How far the accuracy on earlier tasks falls below the line between its values at the two ends, at most.

    >>> line = [(0.0, 0.9), (0.5, 0.4), (1.0, 0.7)]
    >>> barrier([{"after": 1, "share": share, "earlier": value, "next": 0.5} for share, value in line])
    0.4
    """
    falls = [0.0]
    for task in {row["after"] for row in rows}:
        line = [(_number(row["share"]), _number(row["earlier"])) for row in rows if row["after"] == task]
        (_, begin), (_, end) = line[0], line[-1]
        falls += [round(begin + (end - begin) * share - value, 12) for share, value in line]
    return max(falls)


def figure(rows: Sequence[Row]) -> Figure:
    """The accuracies against the way through all solutions."""
    places = [_number(row["after"]) + _number(row["share"]) for row in rows]
    series = {
        "tasks before": [(x, _number(row["earlier"])) for x, row in zip(places, rows, strict=True)],
        "task to come": [(x, _number(row["next"])) for x, row in zip(places, rows, strict=True)],
    }
    title = "Accuracy on the straight lines between solutions"
    return Figure(title=title, x_label="from the solution of task", y_label="accuracy", series=series)


def _number(value: Scalar) -> float:
    return float(value or 0)
