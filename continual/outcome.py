"""What a finished stream reports: tables, figures, the network."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from backbone.checkpoint import save_model
from backbone.contract import Figure, Result, Row, Services
from continual.configs import StreamConfig

if TYPE_CHECKING:
    from continual.stream import State


def outcome(config: StreamConfig, services: Services, state: State, metrics: dict[str, float]) -> Result:
    """Save the network and gather what there is to see."""
    data = state.stream.data
    about = {
        "backbone": config.backbone,
        "backbone_options": dict(config.backbone_options),
        "adapters": [{"name": config.adapter, "options": dict(config.adapter_options)}] if config.adapter else [],
        "in_shape": list(data.in_shape),
        "classes": list(state.stream.names),
        "dataset": config.dataset,
        "dataset_options": dict(config.dataset_options),
        "validation": config.validation,
        "data_sha256": data.fingerprint,
        "saved": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    save_model(services.trial_dir / "model", state.model.eval(), about)
    return Result(
        metrics=metrics,
        tables={"accuracy": _matrix(state, "accuracy"), "task_aware_accuracy": _matrix(state, "task_aware")},
        figures=_figures(state),
        artifacts={"model": "model/model.safetensors", "manifest": "model/model.json"},
    )


def _matrix(state: State, name: str) -> list[Row]:
    rows = getattr(state.matrices, name)
    return [
        {"after": "nothing" if i == 0 else f"task {i}", **{f"task {j + 1}": value for j, value in enumerate(row)}}
        for i, row in enumerate(rows)
    ]


def _figures(state: State) -> dict[str, Figure]:
    rows = state.matrices.accuracy[1:]
    count = len(rows)
    each = {f"task {j + 1}": [(float(i + 1), rows[i][j]) for i in range(j, count)] for j in range(count)}
    seen = [(float(i + 1), sum(rows[i][: i + 1]) / (i + 1)) for i in range(count)]
    return {
        "average": Figure(
            title="Average accuracy on the tasks so far",
            x_label="tasks learned",
            y_label="accuracy",
            series={"average accuracy": seen},
        ),
        "tasks": Figure(title="Accuracy on each task", x_label="tasks learned", y_label="accuracy", series=each),
    }
