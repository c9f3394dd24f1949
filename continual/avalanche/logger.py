"""Avalanche's metrics in MLflow.

::

    import mlflow
    from engram.continual.avalanche.logger import MLflowLogger
    evaluator = EvaluationPlugin(accuracy_metrics(stream=True), loggers=[MLflowLogger(mlflow)])

The class is made when it is asked for, because Avalanche is imported then; MLflow is handed over, never imported.
"""

from __future__ import annotations

import json
import numbers
import re
from functools import cache
from typing import Any, Protocol

from torch import Tensor

from engram.continual.avalanche.guard import module

FORBIDDEN = re.compile(r"[^\w\-. /:]")
"""What an MLflow key must not have."""


class MLflow(Protocol):
    """The module ``mlflow`` with an active run, or anything with these."""

    def log_metric(self, key: str, value: float, step: int | None = None) -> Any: ...
    def log_text(self, text: str, artifact_file: str) -> Any: ...


class Logging:
    """Scalars become metrics, at the number of training iterations so far; tensors become JSON artifacts.

    Metrics whose value is not a number, a tensor, or a choice that holds one (a figure, say) are left out.

    Args:
        mlflow: the module, with an active run, or something that logs like it.
    """

    def __init__(self, mlflow: MLflow) -> None:
        super().__init__()
        self.mlflow = mlflow

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        key = FORBIDDEN.sub("_", name).strip("/")
        if hasattr(value, "best_supported_value"):
            value = value.best_supported_value(Tensor, float, int)
        if isinstance(value, Tensor) and value.numel() > 1:
            self.mlflow.log_text(json.dumps(value.tolist()), f"{key}/{int(x_plot)}.json")
        elif isinstance(value, numbers.Real | Tensor) and not isinstance(value, bool):
            self.mlflow.log_metric(key, float(value), step=int(x_plot))


@cache
def _made() -> type:
    base = module("avalanche.logging").BaseLogger
    return type("MLflowLogger", (Logging, base), {"__module__": __name__, "__doc__": Logging.__doc__})


def __getattr__(name: str) -> type:
    if name != "MLflowLogger":
        raise AttributeError(name)
    return _made()
