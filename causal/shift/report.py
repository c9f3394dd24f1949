"""Tables and figures of a network that is tested under shift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engram.backbone.contract import AnyFigure, Bars, Figure, Result, Row
from engram.backbone.data.columns import ENVIRONMENT, GROUP
from engram.backbone.measures.confusions import wilson
from engram.causal.shift.answered import Answered, Counts, adjusted, worst
from engram.causal.shift.policies import ORACLE, SCORE, TEST

ROLES: Mapping[str, str] = {
    "train": "trained on",
    "validation": "chosen by",
    "test": "tested on",
    "oracle": "for oracle selection",
    "seen": "test images of environments trained on",
}
"""What becomes of images, by their part of the division."""


def tested(found: Result, parts: Mapping[str, Answered]) -> Result:
    """A result of training with what groups and environments add to it.

    Args:
        found: what is measured of any network.
        parts: what the network answers, by what the images are for (`ROLES`); ``train`` and ``test`` are among them.
    """
    test, train = parts["test"], parts["train"]
    metrics = {**found.metrics, "train/accuracy": train.counts.accuracy}
    if "oracle" in parts:
        metrics["test/oracle/accuracy"] = parts["oracle"].counts.accuracy
    tables: dict[str, Sequence[Row]] = {**found.tables}
    figures: dict[str, AnyFigure] = {**found.figures}
    if groups := test.by(GROUP):
        own = train.by(GROUP)
        metrics["test/worst_group/accuracy"] = worst(groups)
        if (mean := adjusted(groups, own)) is not None:
            metrics["test/adjusted/accuracy"] = mean
        tables["groups"] = _groups(groups, own, test.counts)
        figures["groups"] = _bars("group", groups)
    by_environment = {name: part.by(ENVIRONMENT) for name, part in parts.items()}
    if any(by_environment.values()):
        tables["environments"] = _environments(by_environment)
        metrics |= {
            f"{part}/{name}/accuracy": each.accuracy
            for part in ("train", "test")
            for name, each in by_environment[part].items()
        }
        shown = {
            f"{name} ({ROLES[part]})": each
            for part in ("train", "seen", "test")
            for name, each in by_environment.get(part, {}).items()
        }
        figures["environments"] = _bars("environment", shown)
    return Result(metrics=metrics, tables=tables, figures=figures)


def moments(rows: Sequence[Row], without: Sequence[float] | None) -> dict[str, AnyFigure]:
    """What each policy goes by while a network is trained, and what the network scores then."""
    names = {SCORE: "validation, environments trained on", ORACLE: "oracle: test environment", TEST: "test"}
    series = {
        text: [(float(row["epoch"] or 0), float(row[name] or 0)) for row in rows if name in row]
        for name, text in names.items()
    }
    if without is not None:
        points = zip(rows, without, strict=True)
        series["environments left out"] = [(float(row["epoch"] or 0), score) for row, score in points]
    return {
        "policies": Figure(
            title="What policies go by, and what it is worth",
            x_label="epoch",
            y_label="accuracy",
            series={name: line for name, line in series.items() if line},
        )
    }


def _groups(tested: Mapping[str, Counts], trained: Mapping[str, Counts], whole: Counts) -> list[Row]:
    """A row for each group, the worst first: of its training images how many, of its test images all else."""
    total = sum(each.images for each in trained.values())
    rows = [
        (name, trained[name].images if name in trained else 0, each)
        for name, each in sorted(tested.items(), key=lambda pair: pair[1].accuracy)
    ]
    return [
        {"group": name, "train_images": images, "train_share": images / total if total else 0.0, **each.row()}
        for name, images, each in [*rows, ("all", total, whole)]
    ]


def _environments(parts: Mapping[str, Mapping[str, Counts]]) -> list[Row]:
    return [
        {"environment": name, "images are": ROLES[part], **each.row()}
        for part, counts in parts.items()
        for name, each in counts.items()
    ]


def _bars(what: str, counts: Mapping[str, Counts]) -> Bars:
    ends: Any = [wilson(each.right, each.images) for each in counts.values()]
    return Bars(
        title=f"Accuracy by {what}, with 95 % intervals",
        x_label=what,
        y_label="accuracy",
        names=[*counts],
        series={"accuracy": [each.accuracy for each in counts.values()]},
        ranges={"accuracy": ends},
    )
