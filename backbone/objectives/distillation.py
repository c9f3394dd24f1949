"""Learning from another network's outputs beside the labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.nets.classifier import Classifier, Normalise
from engram.backbone.nets.layout import arranged


class Distillation:
    """Mixes the difference to a teacher's outputs into a training loss.

        (1 - w) loss + w tau^2 KL(softmax(z_teacher / tau) || softmax(z / tau))

    Args:
        teacher: a trained classifier; it is put in evaluation mode and never changes.
        normalise: how the student's images are normalised; the teacher sees the same pictures its own way.
        weight: w in [0, 1].
        temperature: tau > 0.
        outputs: [classes] int64, the teacher's output for each class of the student.

    Source: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), section 2.
    """

    def __init__(
        self, teacher: Classifier, normalise: Normalise, weight: float, temperature: float, outputs: Tensor
    ) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.weight, self.temperature = weight, temperature
        self.outputs = outputs
        ratio = normalise.std / teacher.normalise.std
        shift = (normalise.mean - teacher.normalise.mean) / teacher.normalise.std
        self.ratio, self.shift = ratio[:, None, None], shift[:, None, None]
        self.same = torch.equal(normalise.mean, teacher.normalise.mean) and bool((ratio == 1).all())

    def to(self, device: str) -> Distillation:
        self.teacher.to(device)
        self.ratio, self.shift, self.outputs = (each.to(device) for each in (self.ratio, self.shift, self.outputs))
        return self

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
