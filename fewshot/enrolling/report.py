"""What there is to see of enrolled classes: scores, who is taken for whom, and which pictures are hard."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engram.backbone.contract import AnyFigure, Pictures, Result, Row
from engram.backbone.data.columns import INDEX
from engram.backbone.data.sets import Data, Split
from engram.backbone.measures.confusions import Confusions, as_picture, wilson
from engram.fewshot.enrolling.answers import Answers

HARD, SHOWN = 20, 8
"""The hardest pictures that are listed, and of these that are shown."""
NAME = "file_name"
"""The column with what a picture is called; else it is known by its place in its part of the data set."""
_GAP = 4


def report(answers: Answers, data: Data) -> Result:
    """Metrics, tables and figures; ``data`` are the pictures enrolled (train) and asked about (test)."""
    right, count = int(answers.right.sum()), len(answers.labels)
    low, high = wilson(right, count)
    metrics = {
        "test/accuracy": right / count,
        "test/accuracy/ci95": (high - low) / 2,
        "classes": float(answers.ways),
        "images": float(count),
    }
    unknown = answers.rejected_unknown()
    told = [share for share in unknown if share is not None]
    tables: dict[str, Sequence[Row]] = {
        "classes": _classes(answers, data.classes, unknown),
        "hard pictures": _hard(answers, data),
    }
    if answers.rejected is not None:
        metrics["test/known_rejected"] = float(answers.rejected.float().mean())
    if told:
        metrics["test/unknown_rejected"] = sum(told) / len(told)
    if answers.threshold is not None:
        tables["none of these"] = [
            {
                "asked for": answers.reject,
                "squared distance": answers.threshold,
                "rejected of enrolled classes": metrics["test/known_rejected"],
                "rejected of classes not enrolled": metrics.get("test/unknown_rejected"),
            }
        ]
    return Result(metrics=metrics, tables=tables, figures=_figures(answers, data))


def _classes(answers: Answers, names: Sequence[str], unknown: Sequence[float | None]) -> list[Row]:
    """A row for each class; accuracies with Wilson's interval."""
    rows: list[Row] = []
    enrolled = torch.bincount(answers.known.cpu(), minlength=answers.ways).tolist()
    for number, name in enumerate(names):
        mine = answers.labels == number
        count, right = int(mine.sum()), int(answers.right[mine].sum())
        low, high = wilson(right, count)
        row: dict[str, str | int | float | None] = {
            "class": name,
            "enrolled": enrolled[number],
            "asked": count,
            "accuracy": right / count,
            "from": low,
            "to": high,
        }
        if answers.rejected is not None:
            row["rejected"] = float(answers.rejected[mine].float().mean())
        if unknown:
            row["rejected if not enrolled"] = unknown[number]
        rows.append(row)
    return rows


def _hardest(answers: Answers, most: int) -> Tensor:
    """Positions of the pictures with the smallest margins, wrong answers first."""
    return answers.margins.argsort(stable=True)[:most]


def _hard(answers: Answers, data: Data) -> list[Row]:
    rows = _hardest(answers, HARD)
    own = answers.nearest(rows, answers.labels[rows]).tolist()
    other = answers.nearest(rows, answers.rivals[rows]).tolist()
    return [
        {
            "picture": called(data.test, row),
            "class": data.classes[int(answers.labels[row])],
            "answer": data.classes[int(answers.logits[row].argmax())],
            "margin": float(answers.margins[row]),
            "nearest of its class": called(data.train, mine),
            "nearest of the rival": called(data.train, theirs),
        }
        for row, mine, theirs in zip(rows.tolist(), own, other, strict=True)
    ]


def called(split: Split, position: int) -> str | int:
    """What a picture is called: its file's name where that was asked for, or its place in its part of the data."""
    column = split.columns.get(NAME, split.columns.get(INDEX))
    found = position if column is None else column[position]
    return found if isinstance(found, str) else int(found)


def _figures(answers: Answers, data: Data) -> dict[str, AnyFigure]:
    confusions = Confusions(data.classes, keep=0)
    confusions.add(torch.empty(0), answers.labels, answers.logits)
    found = confusions.matrix("test")
    if data.frames is None and data.in_shape[0] in (1, 3):
        found["hard"] = _sheet(answers, data)
    return found


def _sheet(answers: Answers, data: Data) -> Pictures:
    """Each hard picture beside the nearest one enrolled of its class, and of the class that it is, or might be, taken
    for.
    """
    rows = _hardest(answers, SHOWN)
    rivals = answers.rivals[rows]
    asked = pixels(data.test, rows)
    own = pixels(data.train, answers.nearest(rows, answers.labels[rows]))
    other = pixels(data.train, answers.nearest(rows, rivals))
    captions = []
    for row, rival in zip(rows.tolist(), rivals.tolist(), strict=True):
        verb = "nearly taken for" if answers.right[row] else "taken for"
        captions.append(f"{data.classes[int(answers.labels[row])]} {verb} {data.classes[rival]}")
    title = "The hardest pictures, each beside the nearest enrolled of its class and of the other class"
    return Pictures(
        title=title, pictures=[beside(three) for three in zip(asked, own, other, strict=True)], captions=captions
    )


def pixels(split: Split, rows: Tensor) -> Tensor:
    """The images at some positions, [n, C, H, W] uint8."""
    (images,) = (found for found, _, _ in split.batches(rows, max(len(rows), 1), "cpu"))
    return images


def beside(images: Sequence[Tensor]) -> Tensor:
    """Images [C, H, W] side by side as one picture, [H, W'] or [H, W', 3]."""
    gap = torch.full((*images[0].shape[:2], _GAP), 127, dtype=torch.uint8)
    parts = [part for image in images for part in (image, gap)]
    return as_picture(torch.cat(parts[:-1], 2))
