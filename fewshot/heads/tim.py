"""Class vectors that are trained on the support set and on all queries together: TIM."""

from __future__ import annotations

import math
from functools import partial
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad

from engram.backbone.errors import must
from engram.backbone.hardware import exactly
from engram.backbone.nets.prototypes import class_means, nearest_mean
from engram.fewshot.head_options import TIMOptions

MEAN, SQUARE, EPS = 0.9, 0.999, 1e-8
"""Of Adam."""


class TIM(nn.Module):
    """Squared distances to a vector for each class, which begins at the class mean and is trained on the episode.

        p_k(f) = softmax_k(-s/2 |f / |f| - w_k|^2)
        loss   = CE(support) - H(mean over queries of p) + c mean over queries of H(p)

    so that answers agree with the support set, single ones are certain and all together use all classes. The answer to
    a query depends on the others: it is transductive, and wants as many queries of each class. Nothing stays from one
    episode to the next, and no gradient reaches the network.

    Args:
        features: F.
        classes: K.
        options: the scale s, the weight c, and the steps of Adam.

    Source: Boudiaf et al. 2020 (arXiv 2008.11297), sections 2.1 and 2.3, with gradient descent (TIM-GD).
    """

    def __init__(self, features: int, classes: int, options: TIMOptions) -> None:
        super().__init__()
        self.options = options

    def from_support(self, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """[E, Q, F], [E, S, F], [E, S] -> logits [E, Q, K]."""
        with torch.inference_mode(False), torch.no_grad(), exactly(support):
            asked, known = (F.normalize(each.float(), dim=-1) for each in (queries, support))
            slopes = grad(partial(self._loss, asked, known, F.one_hot(labels, ways).float()))
            vectors = class_means(known, labels, ways)
            mean, square = torch.zeros_like(vectors), torch.zeros_like(vectors)
            for step in range(1, self.options.steps + 1):  # Adam, every episode by itself
                slope = slopes(vectors)
                mean, square = mean.lerp(slope, 1 - MEAN), square.lerp(slope * slope, 1 - SQUARE)
                size = (square / (1 - SQUARE**step)).sqrt() + EPS
                vectors = vectors - self.options.inner_lr / (1 - MEAN**step) * mean / size
            return self._logits(asked, vectors)

    def fitted(self, support: Tensor, labels: Tensor, ways: int) -> NoReturn:
        """Nothing: the answer to a query depends on the other queries.

        Raises:
            UserError: always.
        """
        got = "fewshot.tim, whose answers depend on all queries"
        raise must("a head for fixed classes", "one that answers each query by itself", got, "Use fewshot.simpleshot.")

    def _logits(self, features: Tensor, vectors: Tensor) -> Tensor:
        weight, bias = nearest_mean(vectors)
        return self.options.scale / 2 * torch.baddbmm(bias.unsqueeze(1), features, weight.mT)

    def _loss(self, queries: Tensor, support: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        """The sum over all episodes."""
        known = -(targets * self._logits(support, vectors).log_softmax(-1)).sum(-1).mean(1)
        answers = self._logits(queries, vectors).log_softmax(-1)
        together = answers.logsumexp(1) - math.log(queries.shape[1])  # of the mean answer
        single = -(answers.exp() * answers).sum(-1).mean(1)
        return (known + (together.exp() * together).sum(-1) + self.options.certainty * single).sum()
