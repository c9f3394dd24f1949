"""Synaptic intelligence: hold on to the weights that have brought the loss down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from engram.backbone.contract import Batch, Learner, Setting, Task
from engram.backbone.training.optim import lists
from engram.continual.regularisation.options import SIOptions
from engram.continual.regularisation.penalty import Penalty
from engram.continual.strategy import total_bytes


class SI(Penalty):
    """Penalises moving weights by what each contributed to the fall of earlier tasks' losses.

    In every step omega <- omega - g (theta' - theta): g is the gradient of the loss without the penalty
    (``gradient="total"``: with it) before the step and before clipping, and theta' - theta what the optimizer really
    did, momentum, decay and clipping included. After a task

        Omega <- relu(Omega + omega / ((theta - theta*)^2 + xi)),  theta* <- theta,  omega <- 0

    and the next ones are trained on loss + c sum Omega (theta - theta*)^2, whose gradient is added in closed form.

    Source: Zenke, Poole, Ganguli 2017 (arXiv 1703.04200), equations 3 to 5, and the authors' code for the relu.
    """

    option: ClassVar[str] = "c"
    options: SIOptions

    def __init__(self, options: SIOptions, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        self.contributions = [torch.zeros_like(p) for p in self.anchors]
        """omega; the anchors are theta*, the importances Omega."""
        self.pull: list[Tensor] | None = None
        """2 c Omega; None where there is no penalty."""
        self.gaps: list[Tensor] | None = None
        """theta - theta* before the step; None where nobody knows it."""
        self.gradients: list[Tensor] = []

    def before_task(self, learner: Learner, task: Task) -> None:
        self.gaps = None

    @torch.no_grad()
    def after_backward(self, learner: Learner, batch: Batch) -> None:
        followed = len(learner.strategies) > 1 or learner.options.clip > 0
        if self.gaps is None or followed:  # others may have moved weights since the last step
            self.gaps = list(lists._foreach_sub(self.weights, self.anchors))
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.weights]
        if self.pull is not None:
            pull, gaps = self.pull, self.gaps
            self.measure(gradients, lambda: lists._foreach_mul(pull, gaps))
            pulled = lists._foreach_addcmul(gradients, pull, gaps)
            for weight, gradient in zip(self.weights, pulled, strict=True):
                weight.grad = gradient
            if self.options.gradient == "task":
                self.gradients = gradients
                return
            gradients = list(pulled)
        # what is in weight.grad may still be clipped or changed in place
        self.gradients = [gradient.clone() for gradient in gradients] if followed else gradients

    @torch.no_grad()
    def after_step(self, learner: Learner, batch: Batch) -> None:
        assert self.gaps is not None
        gaps = list(lists._foreach_sub(self.weights, self.anchors))
        lists._foreach_sub_(self.gaps, gaps)
        lists._foreach_addcmul_(self.contributions, self.gradients, self.gaps)
        self.gaps, self.gradients = gaps, []

    @torch.no_grad()
    def after_task(self, learner: Learner, task: Task) -> None:
        damped = lists._foreach_pow(lists._foreach_sub(self.weights, self.anchors), 2)
        lists._foreach_add_(damped, self.options.xi)
        lists._foreach_addcdiv_(self.importances, self.contributions, damped)
        if self.options.relu:
            lists._foreach_clamp_min_(self.importances, 0)
        lists._foreach_copy_(self.anchors, self.weights)
        lists._foreach_zero_(self.contributions)
        self.gaps = None
        self._set_pull()

    def _set_pull(self) -> None:
        active = self.strength > 0 and any(lists._foreach_norm(self.importances))
        self.pull = list(lists._foreach_mul(self.importances, 2 * self.strength)) if active else None

    def bytes(self) -> int:
        gaps = self.anchors  # gone between tasks, and as large
        return super().bytes() + total_bytes([self.pull or [], gaps])

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "contributions": self.contributions}

    @torch.no_grad()
    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        super().load_state_dict(saved)
        for name in ("anchors", "contributions", "importances"):
            lists._foreach_copy_(getattr(self, name), list(saved[name]))
        self.gaps = None
        self._set_pull()
