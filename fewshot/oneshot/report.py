"""What there is to see of one-shot runs: errors by run and by alphabet, and what was taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from engram.backbone.contract import AnyFigure, Bars, Pictures, Result, Row
from engram.backbone.data.sets import Split
from engram.backbone.measures.confusions import wilson
from engram.fewshot.enrolling.report import beside, pixels
from engram.fewshot.episodes.scoring import interval
from engram.fewshot.oneshot.building import Runs

SHOWN = 12
"""Pictures taken for others that are shown."""


def report(split: Literal["test", "validation"], runs: Runs, answers: Tensor, images: Split) -> Result:
    """answers: [runs, classes], what the picture of each class was taken for; ``images``: those the runs show."""
    wrong = answers != torch.arange(answers.shape[1])
    accuracy, half = interval((~wrong).float().mean(1))
    metrics = {f"{split}/accuracy": accuracy, f"{split}/accuracy/ci95": half, "runs": float(len(answers))}
    each = [
        {"run": number, "of": name, "protocol": runs.protocol, "errors": int(row.sum()), "error (%)": _percent(row)}
        for number, (name, row) in enumerate(zip(runs.names, wrong, strict=True), start=1)
    ]
    by_name = _by_name(runs, wrong)
    figures: dict[str, AnyFigure] = {"errors": _errors(by_name)}
    if wrong.any() and images.frames is None and images.in_shape[0] in (1, 3):
        figures["mistakes"] = _mistakes(runs, answers, wrong, images)
    return Result(metrics=metrics, tables={"alphabets": by_name, "runs": each}, figures=figures)


def _percent(wrong: Tensor) -> float:
    return 100 * float(wrong.double().mean())


def _by_name(runs: Runs, wrong: Tensor) -> list[Row]:
    """Errors of each alphabet with Wilson's interval, most first."""
    rows: list[Row] = []
    for name in sorted(set(runs.names)):
        mine = wrong[[name == each for each in runs.names]]
        low, high = wilson(int(mine.sum()), mine.numel())
        rows.append({"of": name, "runs": len(mine), "error (%)": _percent(mine), "from": 100 * low, "to": 100 * high})
    return sorted(rows, key=lambda row: -float(row["error (%)"] or 0))


def _errors(rows: Sequence[Row]) -> Bars:
    shares = [float(row["error (%)"] or 0) / 100 for row in rows]
    ranges = [(float(row["from"] or 0) / 100, float(row["to"] or 0) / 100) for row in rows]
    return Bars(
        title="Errors of one-shot classification, with 95 % intervals",
        x_label="of",
        y_label="error",
        names=[str(row["of"]) for row in rows],
        series={"error": shares},
        ranges={"error": ranges},
    )


def _mistakes(runs: Runs, answers: Tensor, wrong: Tensor, images: Split) -> Pictures:
    """Pictures that were taken for others: each, the one of its character that was known, and the other one."""
    places = wrong.nonzero()
    places = places[
        torch.linspace(0, len(places) - 1, min(SHOWN, len(places))).round().long()
    ]  # from all over the runs
    run, asked = places.unbind(1)
    drawn, taken = runs.drawn, answers[run, asked]
    three = (drawn.queries[run, asked, 0], drawn.support[run, asked, 0], drawn.support[run, taken, 0])
    shown = [pixels(images, rows) for rows in three]
    return Pictures(
        title="Pictures to classify, each beside the one of its character and the one it was taken for",
        pictures=[beside(each) for each in zip(*shown, strict=True)],
        captions=[f"run {number + 1}, {runs.names[number]}" for number in run.tolist()],
    )
