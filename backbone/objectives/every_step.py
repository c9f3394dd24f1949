"""Temporal efficient training: a loss for every step's outputs in place of one for their mean."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from engram.backbone.hardware import autocast
from engram.backbone.training.loop import Batch, Trainer

TARGET = 1.0
"""phi: what the outputs of every step are drawn to, a threshold."""


def temporal_loss(logits: Tensor, labels: Tensor, share: float, label_smoothing: float = 0.0) -> Tensor:
    """The loss of outputs that are each to be right by themselves.

        L = (1 - lambda) mean_t CE(o_t, y) + lambda mean_t MSE(o_t, phi)

    Args:
        logits: o, [T, N, K] float32.
        labels: y, [N] int64.
        share: lambda in [0, 1).
        label_smoothing: of the cross-entropy.

    Returns: []. With one step and lambda = 0 it is the cross-entropy of the mean output.

    Source: Deng et al. 2022 (arXiv 2202.11946), section 4.3, with phi = `TARGET`.
    """
    each = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), label_smoothing=label_smoothing)
    return (1 - share) * each + share * (logits - TARGET).square().mean() if share else each


class TemporalTrainer(Trainer):
    """`Trainer` of a spiking network with `temporal_loss`; distillation still works on the mean over steps.

    Args:
        share: lambda.
        args, more: of `Trainer`.
    """

    def __init__(self, *args: Any, share: float, **more: Any) -> None:
        super().__init__(*args, **more)
        self.share = share
        self.every_step: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, C, H, W] or [N, T, C, H, W] -> the mean over steps of the logits, [N, K] float32."""
        model: Any = self.progress.model
        with autocast(self.device, self.precision):
            logits: Tensor = model.head(model.backbone.forward_steps(images)).float()
        self.every_step = logits
        return logits.mean(0)

    def objective(self, batch: Batch) -> Tensor:
        steps, self.every_step = self.every_step, None
        assert steps is not None  # forward ran
        return temporal_loss(steps, batch.labels, self.share, self.options.label_smoothing)
