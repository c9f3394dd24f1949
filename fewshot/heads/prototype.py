"""Nearest class mean: prototypical networks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.hardware import exactly
from engram.backbone.nets.heads import layer_of
from engram.backbone.nets.prototypes import class_means, nearest_mean
from engram.backbone.solving import solve_gram
from engram.fewshot.head_options import PrototypeOptions


class Prototype(nn.Module):
    """The squared distance to the mean of each class, its prototype, without the part that all classes share.

        z_k = s (|f|^2 - |f - c_k|^2) = s (2 c_k . f - |c_k|^2)

    is linear in the features, and has the softmax of ``-s |f - c_k|^2``. ``gaussian`` measures distances with the
    inverse P of one covariance for all classes, ``z_k = s (2 c_k' P f - c_k' P c_k)``: the one within the classes of
    the support set, drawn to ``v I``, where v is the mean variance of the features over the whole support set. With
    one image a class there is none within, and it is the Euclidean distance over ``shrinkage v``.

    With fixed classes the prototypes are weights like any others, which gradients move.

    Args:
        features: F.
        classes: K.
        options: the distance and the scale s.

    Source: Snell et al. 2017 (arXiv 1703.05175), equations 1, 2 and 8.
    """

    precision: Tensor

    def __init__(self, features: int, classes: int, options: PrototypeOptions) -> None:
        super().__init__()
        self.options = options
        self.prototypes = nn.Parameter(torch.empty(classes, features))
        nn.init.kaiming_uniform_(self.prototypes, a=math.sqrt(5))
        if options.distance == "gaussian":
            self.register_buffer("precision", torch.eye(features))
        self.scale = nn.Parameter(torch.tensor(options.scale)) if options.learn_scale else options.scale

    def forward(self, features: Tensor) -> Tensor:
        """features: [..., F] -> logits [..., K]."""
        with exactly(features):
            return F.linear(features.float(), *self._layer())

    def as_linear(self) -> nn.Linear:
        """Weights ``2 s c_k`` (``2 s P c_k``) and bias ``-s |c_k|^2`` (``-s c_k' P c_k``)."""
        return layer_of(*self._layer())

    def _layer(self) -> tuple[Tensor, Tensor]:
        means = self.prototypes
        if self.options.distance == "euclidean":
            return self._scaled(*nearest_mean(means))
        return self._scaled(*_mahalanobis(means, means @ self.precision))

    def _scaled(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return self.scale * weight, self.scale * bias

    def from_support(self, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """[E, Q, F], [E, S, F], [E, S] -> logits [E, Q, K]."""
        with exactly(support):
            support = support.float()
            means = class_means(support, labels, ways)
            if self.options.distance == "euclidean":
                weight, bias = nearest_mean(means)
            else:
                weight, bias = _mahalanobis(means, solve_gram(*self._spread(support, means, labels), means.mT).mT)
            weight, bias = self._scaled(weight, bias)
            return torch.baddbmm(bias.unsqueeze(1), queries.float(), weight.mT)

    def fitted(self, support: Tensor, labels: Tensor, ways: int) -> Prototype:
        """[S, F], [S] -> the head whose prototypes are the means."""
        made = Prototype(support.shape[1], ways, self.options).to(support.device)
        with torch.no_grad():
            support, labels = support.float().unsqueeze(0), labels.unsqueeze(0)
            means = class_means(support, labels, ways)
            made.prototypes.copy_(means[0])
            if self.options.distance == "gaussian":
                made.precision.copy_(solve_gram(*self._spread(support, means, labels), made.precision.unsqueeze(0))[0])
            if isinstance(self.scale, nn.Parameter) and isinstance(made.scale, nn.Parameter):
                made.scale.copy_(self.scale)
        return made

    def _spread(self, support: Tensor, means: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Rows A [E, S, F] and numbers s [E] so that ``A'A + s I`` is the covariance."""
        share = self.options.shrinkage
        within = support - means.gather(1, labels.unsqueeze(-1).expand_as(support))
        variance = support.var(1, correction=0).mean(1)
        return within * math.sqrt((1 - share) / support.shape[1]), (share * variance).clamp(min=1e-12)


def _mahalanobis(means: Tensor, turned: Tensor) -> tuple[Tensor, Tensor]:
    """means: c [..., K, F]; turned: P c -> the weight and bias of `nearest_mean` under that distance."""
    return 2 * turned, -(means * turned).sum(-1)
