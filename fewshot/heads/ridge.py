"""Ridge regression in closed form, through which gradients reach the network: R2-D2."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.hardware import exactly
from engram.backbone.solving import ridge
from engram.fewshot.head_options import RidgeOptions
from engram.fewshot.heads.layer import Layer


class Ridge(Layer):
    """Ridge regression from the support features to one-hot labels.

        z = s (W' f + b),    W, b = argmin |X W + 1 b' - Y|^2 + l |W|^2

    The intercept b is not penalised. The penalty l and the scale s are learned with the network; the paper learns a
    number that is added to all logits as well, which no softmax sees.

    Args:
        features: F.
        classes: K.
        options: where l and s begin.

    Source: Bertinetto et al. 2019 (arXiv 1805.08136), section 3.2.
    """

    def __init__(self, features: int, classes: int, options: RidgeOptions) -> None:
        super().__init__(features, classes)
        self.options = options
        self.log_penalty = nn.Parameter(torch.tensor(math.log(options.penalty)))
        self.scale = nn.Parameter(torch.tensor(options.scale))

    def from_support(self, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """[E, Q, F], [E, S, F], [E, S] -> logits [E, Q, K]."""
        with exactly(support):
            weight, bias = self._solved(support.float(), labels, ways)
            return torch.baddbmm(bias, queries.float(), weight)

    def fitted(self, support: Tensor, labels: Tensor, ways: int) -> Ridge:
        """[S, F], [S] -> the head with the weights of the regression."""
        made = Ridge(support.shape[1], ways, self.options).to(support.device)
        with torch.no_grad():
            weight, bias = self._solved(support.float().unsqueeze(0), labels.unsqueeze(0), ways)
            made.weight.copy_(weight[0].mT)
            made.bias.copy_(bias[0, 0])
            made.log_penalty.copy_(self.log_penalty)
            made.scale.copy_(self.scale)
        return made

    def _solved(self, support: Tensor, labels: Tensor, ways: int) -> tuple[Tensor, Tensor]:
        """Weights [E, F, K] and biases [E, 1, K]."""
        targets = F.one_hot(labels, ways).to(support.dtype)
        middle, share = support.mean(1, keepdim=True), targets.mean(1, keepdim=True)
        weight = ridge(support - middle, self.log_penalty.exp(), targets - share)
        return self.scale * weight, self.scale * (share - middle @ weight)
