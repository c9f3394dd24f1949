"""Heads: features -> logits."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.contract import Conceptual, Head
from engram.backbone.errors import must
from engram.backbone.hardware import exactly
from engram.backbone.nets.head_options import CosineOptions
from engram.backbone.nets.prototypes import class_means


def linear(features: int, classes: int, options: None = None) -> nn.Linear:
    """features: [..., features] -> logits [..., classes]."""
    return nn.Linear(features, classes)


class Logistic(nn.Module):
    """Logistic regression: a linear layer for every class but the first, whose logit is 0.

    With two classes there is a single logit z, and the cross-entropy is that of sigmoid(z).

    Args:
        features: F.
        classes: K, at least 2.
    """

    def __init__(self, features: int, classes: int, options: None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(features, classes - 1)

    def forward(self, features: Tensor) -> Tensor:
        """features: [..., F] -> logits [..., K]."""
        return F.pad(self.layer(features), (1, 0))

    def as_linear(self) -> nn.Linear:
        """The layer of K outputs whose first weights are 0."""
        return layer_of(F.pad(self.layer.weight, (0, 0, 1, 0)), F.pad(self.layer.bias, (1, 0)))


class Cosine(nn.Module):
    """The cosine of the angle between the features and a vector for each class, times a scale.

        z_k = s cos(f, w_k) = s (f / |f|) . (w_k / |w_k|)

    How long the features are does not matter, nor how often a class was seen: no class has a longer vector or a bias.
    With a support set, w_k is the mean of the features of class k.

    Args:
        features: F.
        classes: K.
        options: the scale s.

    Source: Gidaris and Komodakis 2018 (arXiv 1804.09458), section 3.2; they learn the scale, and begin with 10.
    """

    def __init__(self, features: int, classes: int, options: CosineOptions) -> None:
        super().__init__()
        self.options = options
        self.scale = nn.Parameter(torch.tensor(options.scale)) if options.learn_scale else options.scale
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, features: Tensor) -> Tensor:
        """features: [..., F] -> logits [..., K]."""
        return self.scale * F.linear(F.normalize(features, dim=-1), F.normalize(self.weight, dim=-1))

    def as_linear(self) -> None:
        """None: no linear layer divides by the length of the features."""
        return

    def from_support(self, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """[E, Q, F], [E, S, F], [E, S] -> logits [E, Q, K]."""
        with exactly(support):
            means = class_means(support.float(), labels, ways)
            return self.scale * (F.normalize(queries.float(), dim=-1) @ F.normalize(means, dim=-1).mT)

    def fitted(self, support: Tensor, labels: Tensor, ways: int) -> Cosine:
        """[S, F], [S] -> the head whose vectors are the means."""
        made = type(self)(support.shape[1], ways, self.options).to(support.device)
        with torch.no_grad():
            made.weight.copy_(class_means(support.float(), labels, ways))
            if isinstance(self.scale, nn.Parameter) and isinstance(made.scale, nn.Parameter):
                made.scale.copy_(self.scale)
        return made


def layer_of(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer of its own with the present values of weight [K, F] and bias [K]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # draws nothing
    layer.weight, layer.bias = (nn.Parameter(each.detach().clone()) for each in (weight, bias))
    return layer


def as_linear(head: nn.Module, who: str) -> nn.Linear:
    """The linear layer that computes what a head does.

    Args:
        head: a layer itself, or one of the contract (`engram.backbone.contract.Head`).
        who: needs it, such as the name of an experiment.

    Raises:
        UserError: there is none.
    """
    layer = linear_form(head)
    if layer is None:
        raise must(f"the head for {who}", "one with a linear form", type(head).__name__, "Train with --head linear.")
    return layer


def linear_form(head: nn.Module) -> nn.Linear | None:
    """The linear layer that computes what a head does; None where there is none."""
    if isinstance(head, nn.Linear):
        return head
    return head.as_linear() if isinstance(head, Head) else None


def conceptual(head: nn.Module) -> Conceptual:
    """The head as a concept bottleneck.

    Raises:
        UserError: it is none.
    """
    if not isinstance(head, Conceptual):
        raise must("a head with concepts", "Conceptual", type(head).__name__, "Use --head causal.concept-bottleneck.")
    return head
