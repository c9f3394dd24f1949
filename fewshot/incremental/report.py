"""What there is to see of the sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engram.backbone.contract import AnyFigure, Confusion, Figure, Row
from engram.backbone.measures.confusions import MOST_CLASSES
from engram.fewshot.incremental.measures import Scores

_NAMES = ("accuracy", "base_accuracy", "novel_accuracy", "harmonic_accuracy")


def _of(scores: Scores) -> dict[str, float | None]:
    return dict(zip(_NAMES, (scores.accuracy, scores.base, scores.novel, scores.harmonic), strict=True))


def table(known: Sequence[int], found: Mapping[str, Sequence[Scores]]) -> list[Row]:
    """A row for every session.

    Args:
        known: how many classes had been met after each.
        found: the scores of each, by split.
    """
    rows: list[Row] = []
    for session, classes in enumerate(known):
        scores = {
            f"{split}/{name}": value for split, each in found.items() for name, value in _of(each[session]).items()
        }
        rows.append({"session": session, "classes": classes, **scores})
    return rows


def curves(scores: Sequence[Scores]) -> Figure:
    """Accuracy on all classes so far, on base and on new ones, after every session."""
    each = [_of(one) for one in scores]
    titles = ("all classes so far", "base classes", "new classes", "harmonic mean of base and new")
    series = {
        title: [(float(i), value) for i, row in enumerate(each) if (value := row[name]) is not None]
        for title, name in zip(titles, _NAMES, strict=True)
    }
    return Figure(title="Test accuracy after every session", x_label="session", y_label="accuracy", series=series)


def confusion(classes: Sequence[str], answers: Tensor, labels: Tensor) -> dict[str, AnyFigure]:
    """Which class was taken for which after the last session, where there are no more than one can see.

    answers, labels: [N] int64.
    """
    size = len(classes)
    if size > MOST_CLASSES:
        return {}
    counts = torch.bincount(labels * size + answers, minlength=size**2).view(size, size)
    title = "Confusion on test images after the last session"
    return {"confusion": Confusion(title=title, classes=list(classes), counts=counts.tolist())}
