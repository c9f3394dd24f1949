"""What the mixing experiment says: shares and accuracies by level of noise."""

from __future__ import annotations

from collections.abc import Sequence

from engram.backbone.contract import AnyFigure, Figure, Result, Row
from engram.feedback.mixing.configs import MixingConfig

SCALES = {"gaussian": "noise (standard deviations of the images)", "salt-and-pepper": "noise (share of the pixels)"}


def report(config: MixingConfig, path: Sequence[Sequence[Row]], accuracies: Sequence[Sequence[float]]) -> Result:
    """Metrics, tables and figures.

    Args:
        config: with what was trained in turn (`MixingConfig.conditions`).
        path: for each of that the shares, the correction and the loss after each update.
        accuracies: for each of that those after the plain pass and after each step.
    """
    done = zip(config.conditions, path, accuracies, strict=True)
    rows = [_row(level, feedback, ends[-1], scores) for (level, feedback), ends, scores in done]
    lowest, highest, without = rows[0], rows[-2], rows[-1]
    metrics = {"feedback_share/rise": _number(highest, "feedback") - _number(lowest, "feedback")}
    for end, row in (("lowest", lowest), ("highest", highest)):
        metrics[f"feedback_share/{end}"] = _number(row, "feedback")
        metrics[f"{end}/test/accuracy"] = _number(row, "accuracy_plain")
        metrics[f"{end}/test/gain"] = _number(row, "gain")
    metrics["highest/test/gain_without"] = _number(without, "gain")
    return Result(
        metrics=metrics,
        tables={"mixing": rows, **_tables(config, path, accuracies)},
        figures=_figures(config, rows[:-1], path, accuracies),
    )


def _number(row: Row, name: str) -> float:
    return float(row[name] or 0)


def _row(level: float, feedback: bool, end: Row, scores: Sequence[float]) -> Row:
    """One condition; what the steps add is in points."""
    forward, back = _number(end, "feedforward"), _number(end, "feedback")
    return {
        "level": level,
        "with_feedback": feedback,
        "feedforward": forward,
        "feedback": back,
        "memory": 1 - forward - back,
        "correction": end["correction"],
        "accuracy_plain": scores[0],
        "accuracy": scores[-1],
        "gain": 100 * (scores[-1] - scores[0]),
    }


def _tables(
    config: MixingConfig, path: Sequence[Sequence[Row]], accuracies: Sequence[Sequence[float]]
) -> dict[str, list[Row]]:
    names = [f"level_{level:g}" + "_without" * (not feedback) for level, feedback in config.conditions]
    steps: list[Row] = [
        {"steps": step, **dict(zip(names, column, strict=True))}
        for step, column in enumerate(zip(*accuracies, strict=True))
    ]
    updates: list[Row] = [
        {"level": level, "with_feedback": feedback, "update": number, **row}
        for (level, feedback), of_condition in zip(config.conditions, path, strict=True)
        for number, row in enumerate(of_condition, 1)
    ]
    return {"accuracy_vs_steps": steps, "updates": updates}


def _figures(
    config: MixingConfig,
    rows: Sequence[Row],
    path: Sequence[Sequence[Row]],
    accuracies: Sequence[Sequence[float]],
) -> dict[str, AnyFigure]:
    names = [f"{level:g}" + ", no feedback" * (not feedback) for level, feedback in config.conditions]
    shares = ("feedforward", "feedback", "memory")
    return {
        "shares": Figure(
            title="What a stage's next output is made of",
            x_label=SCALES[config.noise],
            y_label="share",
            series={name: [(_number(row, "level"), _number(row, name)) for row in rows] for name in shares},
        ),
        "accuracy_vs_steps": Figure(
            title=f"Accuracy against steps after the plain pass, by {config.noise} noise",
            x_label="steps",
            y_label="test accuracy",
            series={
                name: [(float(step), score) for step, score in enumerate(scores)]
                for name, scores in zip(names, accuracies, strict=True)
            },
        ),
        "feedback_while_trained": Figure(
            title=f"Share of feedback while it is trained, by {config.noise} noise",
            x_label="updates",
            y_label="share of feedback",
            series={
                name: [(float(number), _number(row, "feedback")) for number, row in enumerate(of_level, 1)]
                for name, of_level in zip(names[:-1], path[:-1], strict=True)
            },
        ),
    }
