"""Nearest class mean of normalised features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.errors import must
from engram.backbone.hardware import exactly
from engram.backbone.nets.prototypes import class_means, nearest_mean
from engram.fewshot.head_options import SimpleShotOptions


class SimpleShot(nn.Module):
    """The squared distance to the mean of each class, of features of length 1.

        un   t(f) = f
        l2n  t(f) = f / |f|
        cl2n t(f) = (f - m) / |f - m|

    and z_k = 2 c_k . t(f) - |c_k|^2, where c_k is the mean of t over the support images of class k and m the mean
    feature of the images that the network was trained on, which `centre` is told. ``un`` is ``fewshot.prototype``.

    Args:
        features: F.
        classes: K.
        options: the transform t.

    Source: Wang et al. 2019 (arXiv 1911.04623), section 3.
    """

    base_mean: Tensor
    prototypes: Tensor

    def __init__(self, features: int, classes: int, options: SimpleShotOptions) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("base_mean", torch.full((features,), torch.nan))
        self.register_buffer("prototypes", torch.full((classes, features), torch.nan))

    def centre(self, features: Tensor) -> None:
        """features: [N, F] of the images that the network was trained on; their mean is m."""
        self.base_mean.copy_(features.detach().double().mean(0))

    def forward(self, features: Tensor) -> Tensor:
        """features: [..., F] -> logits [..., K], of a head that was `fitted`."""
        with exactly(features):
            return F.linear(self._transformed(features), *nearest_mean(self.prototypes))

    def as_linear(self) -> None:
        """None: no linear layer divides by the length of the features."""
        return

    def from_support(self, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """[E, Q, F], [E, S, F], [E, S] -> logits [E, Q, K]."""
        with exactly(support):
            weight, bias = nearest_mean(class_means(self._transformed(support), labels, ways))
            return torch.baddbmm(bias.unsqueeze(1), self._transformed(queries), weight.mT)

    def fitted(self, support: Tensor, labels: Tensor, ways: int) -> SimpleShot:
        """[S, F], [S] -> the head with the class means."""
        made = SimpleShot(support.shape[1], ways, self.options).to(support.device)
        with torch.no_grad():
            made.base_mean.copy_(self.base_mean)
            made.prototypes.copy_(class_means(self._transformed(support), labels, ways))
        return made

    def _transformed(self, features: Tensor) -> Tensor:
        features = features.float()
        if self.options.transform == "un":
            return features
        if self.options.transform == "cl2n":
            if self.base_mean.isnan().any():
                what, rule = "fewshot.simpleshot", "told the mean feature of the training classes for cl2n"
                raise must(what, rule, "none", "Call centre(features), or use --head.transform l2n.")
            features = features - self.base_mean
        return F.normalize(features, dim=-1)
