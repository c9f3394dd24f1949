"""A linear layer that is trained on the support set, behind a network that is trained for that: ANIL."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.hardware import exactly
from engram.fewshot.head_options import ANILOptions
from engram.fewshot.heads.layer import Layer


class ANIL(Layer):
    """A linear layer after some steps of gradient descent on the cross-entropy of the support set.

    It begins at zero, so that the order of the classes does not matter and any number of them can be told apart; the
    papers learn where it begins, for one number of ways. Gradients reach the network through all steps, of second
    order included.

    Args:
        features: F.
        classes: K.
        options: steps, in training and evaluation, and their learning rate.

    Source: Raghu et al. 2020 (arXiv 1909.09157), section 5; the beginning: Kao et al. 2022 (arXiv 2106.15367).
    """

    def __init__(self, features: int, classes: int, options: ANILOptions) -> None:
        super().__init__(features, classes)
        self.options = options

    def from_support(self, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """[E, Q, F], [E, S, F], [E, S] -> logits [E, Q, K]."""
        with exactly(support):
            steps = self.options.steps if self.training else self.options.test_steps
            weight, bias = self._trained(support.float(), labels, ways, steps)
            return torch.baddbmm(bias.unsqueeze(1), queries.float(), weight.mT)

    def fitted(self, support: Tensor, labels: Tensor, ways: int) -> ANIL:
        """[S, F], [S] -> the head with the layer after the last step of evaluation."""
        made = ANIL(support.shape[1], ways, self.options).to(support.device)
        with torch.no_grad(), exactly(support):
            weight, bias = self._trained(
                support.float().unsqueeze(0), labels.unsqueeze(0), ways, self.options.test_steps
            )
            made.weight.copy_(weight[0])
            made.bias.copy_(bias[0])
        return made

    def _trained(self, support: Tensor, labels: Tensor, ways: int, steps: int) -> tuple[Tensor, Tensor]:
        """Weights [E, K, F] and biases [E, K]. The gradient is written out: it is there within ``no_grad`` too."""
        rate = self.options.inner_lr / support.shape[1]
        targets = F.one_hot(labels, ways).float()
        weight, bias = support.new_zeros(len(support), ways, support.shape[2]), support.new_zeros(len(support), ways)
        for _ in range(steps):
            wrong = torch.baddbmm(bias.unsqueeze(1), support, weight.mT).softmax(-1) - targets
            weight, bias = weight - rate * (wrong.mT @ support), bias - rate * wrong.sum(1)
        return weight, bias
