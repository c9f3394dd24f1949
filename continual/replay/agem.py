"""Averaged gradient episodic memory: no step along which the loss on kept images rises."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from engram.backbone.contract import Batch, Learner, Setting, Task
from engram.backbone.errors import must
from engram.backbone.seeding import generator
from engram.backbone.training.optim import lists
from engram.continual.replay.options import AGEMOptions
from engram.continual.replay.rehearsal import Rehearsal


class AGEM(Rehearsal):
    """Where the gradient g points against that of kept rows, ``g.r < 0``, it becomes ``g - (g.r / r.r) r``.

    All parameters are one vector. At the end of every task a uniform sample of its images is kept, an equal share
    of the buffer for each task. What strategies before this one (`Facts.turn`) add is part of g; the rest is not
    projected.

    Source: Chaudhry et al. 2019 (arXiv 1812.00420), equation 11.
    """

    name: ClassVar[str] = "agem"
    selection = None
    options: AGEMOptions

    def __init__(self, options: AGEMOptions, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        self.share = setting.buffer // setting.tasks
        if self.share < self.least:
            rule = f"at least {self.least * setting.tasks} for agem, {self.least} for each task"
            raise must(self.place, rule, setting.buffer, "Raise --buffer.")

    def after_backward(self, learner: Learner, batch: Batch) -> None:
        if not self.ready:
            return
        images, rows = self.recall(learner)
        loss = learner.losses(learner.forward(images), rows.labels, rows.tasks).mean()
        params = [p for p in learner.model.parameters() if p.grad is not None]
        reference = torch.autograd.grad(loss, params, materialize_grads=True)
        project([p.grad for p in params if p.grad is not None], reference)

    def after_task(self, learner: Learner, task: Task) -> None:
        order = torch.randperm(len(task.train), generator=generator(self.setting.seed, "agem/keep", task.index))
        for images, labels, _ in task.train.batches(order[: self.share], self.share, learner.device):
            self.buffer.append(images, labels, torch.full_like(labels, task.index))


@torch.no_grad()
def project(gradient: list[Tensor], reference: tuple[Tensor, ...]) -> None:
    """Take from a gradient, in place, what points against the reference; waits for nothing on the device.

    gradient, reference: a tensor for every weight, shaped like it.
    """
    g, r = (torch.cat([each.reshape(-1) for each in parts]) for parts in (gradient, reference))
    inner = g @ r
    share = torch.where(inner < 0, inner / (r @ r), 0.0)
    lists._foreach_sub_(gradient, lists._foreach_mul(reference, share))
