"""A cosine classifier that is trained on the support set: Baseline++."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.hardware import exactly
from engram.backbone.nets.heads import Cosine
from engram.backbone.nets.prototypes import class_means
from engram.fewshot.head_options import BaselinePlusPlusOptions


class BaselinePlusPlus(Cosine):
    """The cosine of the angle to a vector for each class, times a scale, trained on the support set.

        z_k = s cos(f, w_k)

    The vectors begin at the class means and go down the gradient of the cross-entropy of the support set, all of it in
    every step, so that no chance is in it; the paper begins anywhere and draws batches of four. Gradients reach the
    network through all steps.

    Args:
        features: F.
        classes: K.
        options: the scale s, steps and learning rate.

    Source: Chen et al. 2019 (arXiv 1904.04232), section 3.2.
    """

    def __init__(self, features: int, classes: int, options: BaselinePlusPlusOptions) -> None:
        super().__init__(features, classes, options)
        self.steps, self.inner_lr = options.steps, options.inner_lr

    def from_support(self, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """[E, Q, F], [E, S, F], [E, S] -> logits [E, Q, K]."""
        with exactly(support):
            vectors = self._trained(support.float(), labels, ways)
            return self.scale * (F.normalize(queries.float(), dim=-1) @ F.normalize(vectors, dim=-1).mT)

    def fitted(self, support: Tensor, labels: Tensor, ways: int) -> Cosine:
        """[S, F], [S] -> the head with the vectors after the last step."""
        made = super().fitted(support, labels, ways)
        with torch.no_grad(), exactly(support):
            made.weight.copy_(self._trained(support.float().unsqueeze(0), labels.unsqueeze(0), ways)[0])
        return made

    def _trained(self, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """The vectors [E, K, F]. The gradient is written out: no one has to ask for it, within ``no_grad`` too."""
        features, targets = F.normalize(support, dim=-1), F.one_hot(labels, ways).float()
        vectors = class_means(features, labels, ways)
        for _ in range(self.steps):
            length = vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)
            unit = vectors / length
            wrong = (self.scale * (features @ unit.mT)).softmax(-1) - targets
            slope = self.scale * (wrong.mT @ features) / support.shape[1]
            slope = (slope - (slope * unit).sum(-1, keepdim=True) * unit) / length
            vectors = vectors - self.inner_lr * slope
        return vectors
