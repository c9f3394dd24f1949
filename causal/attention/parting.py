"""Images parted into environments, so that a head that is no cause of the classes differs between them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_RATE, _START = 0.1, 0.01
_MEAN, _SQUARE, _LEAST = 0.9, 0.999, 1e-8  # Adam; torch's own imports a compiler when it is first used


def penalty(slope: Tensor, shares: Tensor) -> Tensor:
    """``sum_e p_e (mean over e of the slopes)^2``, with p_e the share of images in an environment: [].

    Weighed by shares it is the variance of the slopes between environments. Where all environments count alike, an
    environment of a single image has the most.

    slope: [N]; shares: [N, E], of each image in each environment, 1 in all.
    """
    size = shares.sum(0)
    return ((slope @ shares).square() / size.clamp(min=1e-6)).sum() / len(slope)


def parted(slope: Tensor, environments: int, steps: int, random: torch.Generator) -> Tensor:
    """The environment of every image, [N] int64, where the penalty is about the largest.

    Each image has a score for each environment, which climb the penalty: in every step an image is in the environment
    of the largest score plus a Gumbel draw, and the gradient is that of the softmax of both.

    Args:
        slope: [N] of every image.
        environments: E.
        steps: of the climb.
        random: draws the first scores and what is added to them.

    Source: Jang, Gu and Poole 2017 (arXiv 1611.01144), the straight-through estimator, at temperature 1; environments
    by the IRM penalty: Creager, Jacobsen and Zemel 2021 (arXiv 2010.07249), section 3.
    """
    slope = (slope / slope.std().clamp(min=1e-9)).float()
    scores = _START * torch.randn(len(slope), environments, generator=random)
    mean, square = torch.zeros_like(scores), torch.zeros_like(scores)
    for step in range(1, steps + 1):
        climb = _gradient(slope, scores, random)
        mean, square = mean.lerp(climb, 1 - _MEAN), square.lerp(climb.square(), 1 - _SQUARE)
        scores = scores + _RATE * (mean / (1 - _MEAN**step)) / ((square / (1 - _SQUARE**step)).sqrt() + _LEAST)
    return scores.argmax(1)


@torch.enable_grad()
def _gradient(slope: Tensor, scores: Tensor, random: torch.Generator) -> Tensor:
    """How the penalty grows with the scores, [N, E], at one draw."""
    scores = scores.detach().requires_grad_()
    gumbel = -torch.rand(scores.shape, generator=random).clamp(min=1e-20).log().neg().clamp(min=1e-20).log()
    soft = (scores + gumbel).softmax(1)
    hard = F.one_hot(soft.argmax(1), scores.shape[1]) - soft.detach() + soft
    return torch.autograd.grad(penalty(slope, hard), scores)[0] * len(slope)
