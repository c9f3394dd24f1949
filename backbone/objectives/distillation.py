"""Learning from another network's outputs beside the labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Batch, Objective, Outputs
from engram.backbone.hardware import Machine, autocast
from engram.backbone.nets.classifier import Classifier, Normalise
from engram.backbone.nets.layout import arranged
from engram.backbone.objectives.around import Around
from engram.backbone.ranks import current


class Distillation(Around):
    """Mixes the difference to a teacher's outputs into the loss of an objective.

        (1 - w) loss + w tau^2 KL(softmax(z_teacher / tau) || softmax(z / tau))

    Args:
        labels: the objective of the labels, which looks at logits.
        teacher: a trained classifier; it is put in evaluation mode and never changes.
        outputs: [classes] int64, the teacher's output for each class of the student.
        normalise: how the student's images are normalised; the teacher sees the same pictures its own way.
        weight: w in [0, 1].
        temperature: tau > 0.
        machine: where the student computes.

    Source: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), section 2.
    """

    def __init__(
        self,
        labels: Objective,
        teacher: Classifier,
        outputs: Tensor,
        normalise: Normalise,
        weight: float,
        temperature: float,
        machine: Machine,
    ) -> None:
        super().__init__(labels)
        self.machine, self.by_rows = machine, False
        ratio = normalise.std / teacher.normalise.std
        shift = (normalise.mean - teacher.normalise.mean) / teacher.normalise.std
        self.same = torch.equal(normalise.mean, teacher.normalise.mean) and bool((ratio == 1).all())
        self.ratio, self.shift = (each[:, None, None].to(machine.device) for each in (ratio, shift))
        self.teacher = teacher.eval().requires_grad_(False).to(machine.device)
        self.outputs = outputs.to(machine.device)
        self.weight, self.temperature = weight, temperature

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        loss = self.inner(outputs, batch, step)
        with autocast(self.machine.device, self.machine.precision):
            targets = self.targets(batch.images)
        if batch.whole is not None and (ranks := current()) is not None:
            targets = ranks.gathered(targets, batch.whole)
        return self.mix(loss, outputs.logits, targets)

    @torch.no_grad()
    def targets(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W], normalised for the student -> the teacher's logits [B, classes] in the
        student's order.
        """
        x = x if self.same else x * self.ratio + self.shift
        return self.teacher.forward_normalised(arranged(x, self.teacher.backbone)).float()[:, self.outputs]

    def mix(self, loss: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """loss: [] of the labels; logits and targets: [B, classes] of the student and the teacher -> []."""
        tau = self.temperature
        difference = F.kl_div(
            (logits / tau).log_softmax(1), (targets / tau).log_softmax(1), reduction="batchmean", log_target=True
        )
        return (1 - self.weight) * loss + self.weight * tau**2 * difference
