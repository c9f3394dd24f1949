"""A network and a linear layer that are trained on every support set: MAML."""

from __future__ import annotations

import copy
import warnings
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from engram.backbone.errors import must
from engram.backbone.hardware import exactly
from engram.fewshot.head_options import ANILOptions, MAMLOptions
from engram.fewshot.heads.anil import ANIL

LAYER = ("head weight", "head bias")
"""Names that no parameter of a network has."""


class MAML(ANIL):
    """A copy of the network and a linear layer behind it, after some steps of gradient descent on the support set.

        t <- t - a grad_t CE(support; t)

    The layer begins at zero, as that of ``fewshot.anil``; with features in place of images it alone is trained.
    Gradients reach the network that the copy is of through all steps, of second order included. BatchNorm normalises by
    the mean and variance of the support set, in every step and for the queries: none of these is influenced by another,
    where the paper's code normalises queries by their own.

    Args:
        features: F.
        classes: K.
        options: steps, in training and evaluation, and their learning rate a.

    Source: Finn et al. 2017 (arXiv 1703.03400), algorithm 2.
    """

    def __init__(self, features: int, classes: int, options: MAMLOptions) -> None:
        inner = ANILOptions(steps=options.steps, test_steps=options.test_steps, inner_lr=options.inner_lr)
        super().__init__(features, classes, inner)

    def from_images(self, net: nn.Module, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """[E, Q, C, H, W] and [E, S, C, H, W] normalised images, [E, S] -> logits [E, Q, K].

        Raises:
            UserError: the network has steps.
        """
        steps: Any = getattr(net, "steps", 1)
        if steps != 1 or support.dim() != 5:
            got = f"one of {steps} steps" if steps != 1 else "one that is given frames"
            raise must("the network for fewshot.maml", "one without steps", got, "Use --head fewshot.anil.")
        inside = _Inside(_normalised_by_first(net, support.shape[1]))
        begin, width = dict(net.named_parameters()), self.weight.shape[1]

        def answers(queries: Tensor, support: Tensor, labels: Tensor) -> Tensor:
            zeros = support.new_zeros(ways, width), support.new_zeros(ways)
            weights = begin | dict(zip(LAYER, zeros, strict=True))
            for _ in range(self.options.steps if self.training else self.options.test_steps):
                slopes = grad(inside.loss)(weights, support, labels)
                weights = {name: value - self.options.inner_lr * slopes[name] for name, value in weights.items()}
            return inside.logits(weights, torch.cat([support, queries]))[len(support) :]

        with torch.inference_mode(False), exactly(support):
            given = (each.clone() if each.is_inference() else each for each in (queries, support, labels))
            with warnings.catch_warnings():  # pooling maps of one pixel is slow under vmap, and says so
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                return vmap(answers, randomness="different")(*given)

    def fitted(self, support: Tensor, labels: Tensor, ways: int) -> NoReturn:
        """Nothing: what is trained on a support set is a network.

        Raises:
            UserError: always.
        """
        got = "fewshot.maml, which trains the network as well"
        raise must("a head for fixed classes", "one that works on features", got, "Use fewshot.anil.")


class _Inside:
    """A network with a linear layer behind it, as functions of all weights by name."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def logits(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        features = functional_call(self.net, {name: weights[name] for name in weights if name not in LAYER}, (images,))
        return F.linear(features, weights[LAYER[0]], weights[LAYER[1]])

    def loss(self, weights: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(weights, images), labels)


class _ByFirst(nn.Module):
    """BatchNorm by the mean and variance of the first images of a batch.

    Args:
        norm: whose weights it has, under the same names.
        count: the number of these images.
    """

    def __init__(self, norm: _BatchNorm, count: int) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.eps, self.count = norm.eps, count

    def forward(self, x: Tensor) -> Tensor:
        shape, over = (1, -1, *[1] * (x.dim() - 2)), (0, *range(2, x.dim()))
        variance, mean = torch.var_mean(x[: self.count], over, correction=0, keepdim=True)
        x = (x - mean) * (variance + self.eps).rsqrt()
        x = x if self.weight is None else x * self.weight.view(shape)
        return x if self.bias is None else x + self.bias.view(shape)


def _normalised_by_first(net: nn.Module, count: int) -> nn.Module:
    """A copy of the network whose BatchNorm layers look at the first images of a batch alone."""
    copied = copy.deepcopy(net)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, _ByFirst(child, count))
    return copied
