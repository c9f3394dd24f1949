"""What an objective around another one leaves as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from engram.backbone.contract import Objective, Row, Training
from engram.backbone.nets.classifier import Classifier


class Around(Objective):
    """An objective that asks another one; what a subclass does not override is the other's.

    Args:
        inner: the other one, which does not stand by itself.
    """

    def __init__(self, inner: Objective) -> None:
        self.inner = inner
        self.columns, self.wants = inner.columns, inner.wants
        self.recordable, self.by_rows = inner.recordable, inner.by_rows

    def begin(self, training: Training) -> None:
        self.inner.begin(training)

    def trained(self, model: Classifier) -> nn.Module | None:
        return self.inner.trained(model)

    def divisor(self, step: int) -> float:
        return self.inner.divisor(step)

    def tables(self) -> Mapping[str, Sequence[Row]]:
        return self.inner.tables()

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(saved)
