"""What a finished stream reports: tables, figures, the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engram.backbone.contract import Figure, Grid, Result, Row, Services
from engram.backbone.experiments.beginning import Beginning
from engram.backbone.options.named import short
from engram.backbone.saved.model import save_model
from engram.continual.experiment.configs import StreamConfig
from engram.continual.experiment.saved import made_of
from engram.continual.regularisation.penalty import LEAST_EFFECT, PULL
from engram.continual.traits import in_turn, said, strength

if TYPE_CHECKING:
    from engram.continual.experiment.learning import StreamState


def outcome(
    config: StreamConfig, services: Services, state: StreamState, beginning: Beginning, metrics: dict[str, float]
) -> Result:
    """Save the network and gather what there is to see; strengths are numbers in the configuration by now."""
    data = state.stream.data
    save_model(
        services.trial_dir / "model", state.learner.trainer.scored_model.eval(), made_of(state.stream, beginning)
    )
    own = {title: rows for strategy in state.strategies for title, rows in strategy.tables().items()}
    named = zip(in_turn(config.strategies), state.strategies, strict=False)  # class means come last, without a name
    effects = {name: strategy.effect() for name, strategy in named if config.traits(name).strength}
    if effects:
        own["penalties"] = [
            {"strategy": said(name), "strength": strength(name, config.options_of(name)), PULL: effect}
            for name, effect in effects.items()
        ]
    if cautions := [*config.cautions(), *data.cautions, *_idle(config, effects)]:
        own["cautions"] = [{"caution": caution} for caution in cautions]
    return Result(
        metrics=metrics,
        tables={"accuracy": _matrix(state, "accuracy"), "task_aware_accuracy": _matrix(state, "task_aware"), **own},
        figures=_figures(state),
        artifacts={"model": "model/model.safetensors", "manifest": "model/model.json"},
    )


def _idle(config: StreamConfig, effects: Mapping[str, float | None]) -> list[str]:
    """What there is to say of penalties that changed nothing measurable."""
    return [
        f"{said(name)} changed nothing measurable: the gradients of its penalty came to {effect:.2%} of those of the "
        f"loss. A larger --strategies.{short(name)}.{config.traits(name).strength} has an effect, auto finds one."
        for name, effect in effects.items()
        if effect is not None and effect < LEAST_EFFECT
    ]


def _matrix(state: StreamState, name: str) -> list[Row]:
    rows = getattr(state.matrices, name)
    return [
        {"after": "nothing" if i == 0 else f"task {i}", **{f"task {j + 1}": value for j, value in enumerate(row)}}
        for i, row in enumerate(rows)
    ]


def _figures(state: StreamState) -> dict[str, Figure | Grid]:
    rows = state.matrices.accuracy[1:]
    count = len(rows)
    each = {f"task {j + 1}": [(float(i + 1), rows[i][j]) for i in range(j, count)] for j in range(count)}
    seen = [(float(i + 1), sum(rows[i][: i + 1]) / (i + 1)) for i in range(count)]
    lost = {name: _forgotten(points) for name, points in each.items() if len(points) > 1}
    x_label = "tasks learned"
    figures: dict[str, Figure | Grid] = {
        "average": Figure(
            title="Average accuracy on the tasks so far", x_label=x_label, y_label="accuracy",
            series={"average accuracy": seen},
        ),
        "tasks": Figure(title="Accuracy on each task", x_label=x_label, y_label="accuracy", series=each),
        "matrix": Grid(
            title="Accuracy on every task after every task", x_label="tested on task", y_label="after task",
            columns=[str(j + 1) for j in range(count)], rows=["none", *(str(i + 1) for i in range(count))],
            values=state.matrices.accuracy,
        ),
    }  # fmt: skip
    if lost:
        figures["forgetting"] = Figure(
            title="Forgetting of each task: its best accuracy before, minus that now",
            x_label=x_label, y_label="forgetting", series=lost,
        )  # fmt: skip
    return figures


def _forgotten(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Forgetting as `engram.continual.experiment.metrics.summary` has it, from a task's accuracies since it was
    learned.
    """
    values = [y for _, y in points]
    return [(x, max(values[:i]) - y if i else 0.0) for i, (x, y) in enumerate(points)]
