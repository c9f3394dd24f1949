"""Learning without forgetting: answer new images as before, where the old outputs are concerned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.contract import Batch, Learner, Setting, Task
from engram.backbone.hardware import autocast
from engram.backbone.nets.classifier import Classifier
from engram.continual.distilling import factor
from engram.continual.regularisation.options import LwFOptions
from engram.continual.strategy import StrategyBase, frozen
from engram.continual.tasks.heads import MASKED


class LwF(StrategyBase):
    """Distils the network as it was before the task into the new one, on the task's own images.

    At temperature tau the difference of two answers is the cross-entropy

        D = -s mean over images of sum_k softmax(z_old / tau)_k log softmax(z / tau)_k

    with s = tau^2, tau^2 / K for K outputs on offer, or 1, as ``scale`` says. With a head for each task, k runs over
    the outputs of one old task, and D is the mean over old tasks; with one head, over the outputs met before, which the
    new network must prefer to all outputs the head offers it now. At the T-th task the loss is
    ``L / T + (1 - 1 / T) D``; with a ``strength`` it is ``L + strength D``, D being summed over old tasks' heads.

    Source: Li and Hoiem 2017 (arXiv 1606.09282), equations 2 to 4; the weights 1 / T: van de Ven and Tolias 2018 (arXiv
    1809.10635), whose code then took the mean over outputs where the formula has the sum over k.
    """

    recordable = True
    reach = "met"
    options: LwFOptions
    model: Classifier

    def __init__(self, options: LwFOptions, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        assert isinstance(model, Classifier)
        self.model = model
        self.teacher: Classifier | None = None
        self.columns: tuple[int, Tensor, Tensor] | None = None
        """Of a task: the outputs of every head before it, and which places are empty, as `_columns` has them."""

    def before_task(self, learner: Learner, task: Task) -> None:
        if learner.task > 0:
            self._teach(self.model.state_dict())

    def _teach(self, weights: Mapping[str, Tensor]) -> None:
        """Make a network of these weights the teacher."""
        if self.teacher is None:
            self.teacher = frozen(self.model)
        self.teacher.load_state_dict(weights)

    def loss(self, learner: Learner, batch: Batch, loss: Tensor) -> Tensor:
        if self.teacher is None:
            return loss
        own = slice(batch.own)
        with torch.no_grad(), autocast(learner.device, learner.precision):
            old = self.teacher.forward_normalised(batch.images[own]).float()
        difference, heads = self._difference(learner, batch.logits[own], old)
        if self.options.strength is not None:
            return loss + self.options.strength * heads * difference
        share = 1 / (learner.task + 1)
        return share * loss + (1 - share) * difference

    def _difference(self, learner: Learner, new: Tensor, old: Tensor) -> tuple[Tensor, int]:
        """new, old: [N, K] logits -> D and how many old heads it is a mean over."""
        tau, head, task = self.options.temperature, learner.head, learner.task
        if not head.by_task:
            targets = (old.masked_fill(~head.met[task - 1], MASKED) / tau).softmax(1)
            allowed = head.allowed(task)
            offered = head.width if allowed is None else allowed.sum()
            return F.cross_entropy(learner.masked(new) / tau, targets) * self._scale(offered), 1
        if self.columns is None or self.columns[0] != task:
            self.columns = (task, *_columns(head.table[:task]))
        _, places, empty = self.columns
        targets = (old[:, places].masked_fill(empty, MASKED) / tau).softmax(2)
        answers = (new[:, places].masked_fill(empty, MASKED) / tau).log_softmax(2)
        entropies = -(targets * answers).sum(2) * self._scale((~empty).sum(1))
        return entropies.mean(), task

    def _scale(self, outputs: int | Tensor) -> float | Tensor:
        return factor(self.options.scale, self.options.temperature, outputs)

    def state_dict(self) -> dict[str, Any]:
        return {"teacher": None if self.teacher is None else self.teacher.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        if saved["teacher"] is not None:
            self._teach(saved["teacher"])


def _columns(table: Tensor) -> tuple[Tensor, Tensor]:
    """table: [heads, K] bool -> the outputs of every head [heads, W], and which of those places stand for none."""
    width = int(table.sum(1).max())
    places = table.int().argsort(dim=1, descending=True, stable=True)[:, :width]
    return places, ~table.gather(1, places)
