"""A quadratic penalty on moving weights, added to the gradients in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from backbone.optim import lists
from continual.strategy import Setting, Strategy, trainable

if TYPE_CHECKING:
    from backbone.training import Batch
    from continual.learner import Learner


class Anchored(Strategy):
    """Adds ``factor I (theta - a)`` to the gradients, I being importances and a anchors, one of each per weight.

    It is the gradient of ``factor / 2 sum I (theta - a)^2``.
    """

    recordable: ClassVar[bool] = True
    factor: float

    def __init__(self, options: Any, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        self.weights = trainable(model)
        self.anchors = [p.detach().clone() for p in self.weights]
        self.importances = [torch.zeros_like(p) for p in self.anchors]
        self.pulls = False
        """Whether there is anything to hold on to."""

    @torch.no_grad()
    def after_backward(self, learner: Learner, batch: Batch) -> None:
        if not self.pulls:
            return
        for weight in self.weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gaps = lists._foreach_sub(self.weights, self.anchors)
        gradients = [weight.grad for weight in self.weights]
        lists._foreach_addcmul_(gradients, self.importances, gaps, value=self.factor)

    def hold(self, importances: Sequence[Tensor], anchors: Sequence[Tensor]) -> None:
        """Take over copies of new importances and anchors, shaped like the weights."""
        lists._foreach_copy_(self.importances, list(importances))
        lists._foreach_copy_(self.anchors, list(anchors))
        self.pulls = self.factor > 0 and any(lists._foreach_norm(self.importances))

    def state_dict(self) -> dict[str, Any]:
        return {"anchors": self.anchors, "importances": self.importances}

    @torch.no_grad()
    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.hold(saved["importances"], saved["anchors"])
