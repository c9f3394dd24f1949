"""Quadratic penalties on moving weights, added to the gradients in closed form, and how much they add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from engram.backbone.contract import Batch, Learner, Setting
from engram.backbone.training.optim import lists
from engram.continual.strategy import StrategyBase, trainable

STRIDE = 10
"""A penalty's gradient is measured every so many steps, as it takes two more passes over the weights."""
LEAST_EFFECT = 0.01
"""A penalty whose gradients come to less beside the others has changed nothing measurable."""

PULL = "penalty's gradient over the loss's"
"""What tables call the effect of a penalty."""


class Penalty(StrategyBase):
    """What penalties share: the weights they hold, a strength, and the size of what they add."""

    recordable = True
    reach = "own"
    option: ClassVar[str] = "strength"
    """Which of its options is the strength."""

    def __init__(self, options: Any, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        strength: float | str = getattr(options, self.option)
        assert not isinstance(strength, str)  # one that is auto has been chosen by now
        self.strength = strength
        self.weights = trainable(model)
        self.anchors = [p.detach().clone() for p in self.weights]
        self.importances = [torch.zeros_like(p) for p in self.anchors]
        self.steps = 0
        """Steps in which there was a penalty."""
        self.sizes = torch.zeros(2, dtype=torch.float64, device=self.anchors[0].device)
        """Sums of the lengths of its gradients and of those it found, over the steps that were measured."""

    def measure(self, gradients: Sequence[Tensor], pulls: Callable[[], Sequence[Tensor]]) -> None:
        """``pulls()`` is about to be added to gradients; both like the weights. Call it once a step."""
        self.steps += 1
        if self.steps % STRIDE == 0:
            parts = [torch.stack(lists._foreach_norm(list(each))).square().sum() for each in (pulls(), gradients)]
            self.sizes += torch.stack(parts).double().sqrt()

    def effect(self) -> float | None:
        if not self.steps:
            return 0.0
        pull, rest = self.sizes.tolist()
        return pull / rest if rest > 0 else None

    def state_dict(self) -> dict[str, Any]:
        state = {"anchors": self.anchors, "importances": self.importances}
        return {**state, "measured": {"steps": self.steps, "sizes": self.sizes}}

    @torch.no_grad()
    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.steps = saved["measured"]["steps"]
        self.sizes.copy_(saved["measured"]["sizes"])


class Anchored(Penalty):
    """Adds ``factor I (theta - a)`` to the gradients, I being importances and a anchors, one of each per weight.

    It is the gradient of ``factor / 2 sum I (theta - a)^2``.
    """

    def __init__(self, options: Any, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        self.factor = self._factor()
        self.pulls = False
        """Whether there is anything to hold on to."""

    def _factor(self) -> float:
        """What a strength of these options comes to."""
        raise NotImplementedError

    @torch.no_grad()
    def after_backward(self, learner: Learner, batch: Batch) -> None:
        if not self.pulls:
            return
        for weight in self.weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gaps = lists._foreach_sub(self.weights, self.anchors)
        gradients: list[Any] = [weight.grad for weight in self.weights]
        self.measure(gradients, lambda: lists._foreach_mul(lists._foreach_mul(self.importances, gaps), self.factor))
        lists._foreach_addcmul_(gradients, self.importances, gaps, value=self.factor)

    def hold(self, importances: Sequence[Tensor], anchors: Sequence[Tensor]) -> None:
        """Take over copies of new importances and anchors, shaped like the weights."""
        lists._foreach_copy_(self.importances, list(importances))
        lists._foreach_copy_(self.anchors, list(anchors))
        self.pulls = self.factor > 0 and any(lists._foreach_norm(self.importances))

    @torch.no_grad()
    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        super().load_state_dict(saved)
        self.hold(saved["importances"], saved["anchors"])
