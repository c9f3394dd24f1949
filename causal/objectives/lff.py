"""The objective ``lff``: what a biased network beside the first one finds hard counts more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Batch, Objective, ObjectiveSetting, Outputs, Row, Training
from engram.backbone.data.columns import GROUP, numbered
from engram.backbone.hardware import autocast
from engram.backbone.nets.plain import copied
from engram.backbone.objectives.cross_entropy import cross_entropies
from engram.backbone.training.optim import Optimizers, add_l2, rate_at
from engram.causal.objectives.reference_options import LfFOptions


class LfF(Objective):
    """Learning from failure: a second network is trained beside the first to be biased, and says which images are hard.

        L = mean_i W_i CE_i,    W_i = C_b,i / (C_b,i + C_i)

    C_b and C are running averages of the cross-entropy of an image, of the biased network and of the one that is
    trained. The biased one begins as a copy, and the same optimizer moves it, on the same batches, by the generalised
    cross-entropy, which learns little from what is not known yet: what is easy is learned first, and no more than that.

    Args:
        options: of the generalised cross-entropy and the averages.
        setting: no column of the data is looked at.

    Attributes:
        averages: [2, N] float32, C_b and C of every training image; 0 before it is shown.

    Source: Nam et al. 2020 (arXiv 2007.02561), algorithm 1. The authors' code divides losses by the largest of their
    class besides, which the paper does not say.
    """

    by_itself = True
    recordable = False

    def __init__(self, options: LfFOptions, setting: ObjectiveSetting) -> None:
        self.options, self.data, self.label_smoothing = options, setting.data, setting.label_smoothing
        self.averages = torch.zeros(2, len(setting.data), device=setting.device)

    def begin(self, training: Training) -> None:
        options = training.options
        self.training, self.biased = training, copied(training.model).train()
        self.optimizers = Optimizers(self.biased, options.optimizer, options.lr, options.momentum, options.weight_decay)

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        biased, ours = self._biased_step(batch, step), cross_entropies(outputs.logits.detach(), batch.labels, 0.0)
        weights = relative_difficulty(self._averaged(batch.indices, torch.stack((biased, ours))))
        return (weights * cross_entropies(outputs.logits, batch.labels, self.label_smoothing)).mean()

    def _biased_step(self, batch: Batch, step: int) -> Tensor:
        """A step of the biased network; its cross-entropies before that, [N]."""
        training = self.training
        with autocast(training.device, training.precision):
            logits = self.biased.forward_normalised(batch.images).float()
        generalised_cross_entropies(logits, batch.labels, self.options.q).mean().backward()
        add_l2(self.biased, training.options.l2)
        if training.options.clip:
            torch.nn.utils.clip_grad_norm_(self.biased.parameters(), training.options.clip)
        self.optimizers.step(rate_at(training.options, step, training.total_steps))
        return cross_entropies(logits.detach(), batch.labels, 0.0)

    def _averaged(self, indices: Tensor, losses: Tensor) -> Tensor:
        """Add losses [2, N] of images to their averages; these, [2, N]. The first loss of an image is its average."""
        places = indices.to(self.averages.device, non_blocking=True)
        before, decay = self.averages[:, places], self.options.decay
        now = torch.where(before.any(0), decay * before + (1 - decay) * losses, losses)
        self.averages[:, places] = now
        return now

    def tables(self) -> Mapping[str, Sequence[Row]]:
        weights, known = relative_difficulty(self.averages.cpu()), self.data.columns.get(GROUP)
        of, names = numbered(self.data.labels if known is None else known)
        counts = of.bincount()
        means = torch.zeros(len(counts)).index_add(0, of, weights) / counts
        each = zip(names, counts.tolist(), means.tolist(), strict=True)
        said = "class" if known is None else GROUP
        return {"weights": [{said: name, "images": count, "mean weight": mean} for name, count, mean in each]}

    def state_dict(self) -> dict[str, Any]:
        return {
            "averages": self.averages,
            "biased": self.biased.state_dict(),
            "optimizers": self.optimizers.state_dict(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.averages = saved["averages"].to(self.averages.device, copy=True)
        self.biased.load_state_dict(saved["biased"])
        self.optimizers.load_state_dict(saved["optimizers"])


def relative_difficulty(losses: Tensor) -> Tensor:
    """Losses [2, N] of the biased network and of the other -> weights [N]; 0 where both are 0."""
    easy, hard = losses
    return easy / (easy + hard).clamp_min(torch.finfo(losses.dtype).tiny)


def generalised_cross_entropies(logits: Tensor, labels: Tensor, q: float) -> Tensor:
    """(1 - p_y^q) / q of every row, [N]: the cross-entropy as q goes to 0, the share of wrong answers at 1.

    logits: [N, K]; labels: [N]; q in (0, 1]. Its gradient is p_y^q times that of the cross-entropy.

    Source: Zhang and Sabuncu 2018 (arXiv 1805.07836), equation 6.
    """
    logs = F.log_softmax(logits, 1).gather(1, labels[:, None]).squeeze(1)
    return -torch.expm1(q * logs) / q
