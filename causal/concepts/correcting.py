"""Concepts corrected by hand, one after another, and what becomes of the answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engram.backbone.contract import Conceptual
from engram.backbone.seeding import generator
from engram.causal.concepts.head import uncertainty

LOW, HIGH = 0.05, 0.95
"""Which quantiles of the training images' logits a corrected concept has: absent, and present."""
ORDERS = 10
"""Random orders, the same for all images, over which a curve is the mean."""


def ends(logits: Tensor) -> tuple[Tensor, Tensor]:
    """What the logits of a concept are corrected to: where it is absent, and where it is present, [C] each.

    Args:
        logits: [N, C] of training images.
    """
    low, high = logits.float().quantile(torch.tensor([LOW, HIGH], device=logits.device), 0)
    return low, high


def corrected(logits: Tensor, present: Tensor, which: Tensor, between: tuple[Tensor, Tensor]) -> Tensor:
    """The logits, with the truth in the place of some.

    Args:
        logits: [N, C].
        present: [N, C] bool.
        which: [N, C] bool, those corrected.
        between: of `ends`.
    """
    low, high = between
    return torch.where(which, torch.where(present, high, low), logits)


def by_chance(concepts: int, seed: int) -> list[Tensor]:
    """`ORDERS` orders of so many concepts, [C] each."""
    return [torch.randperm(concepts, generator=generator(seed, "concepts/order", each)) for each in range(ORDERS)]


def by_uncertainty(logits: Tensor) -> Tensor:
    """The concepts of every image, those first of which the least is known. logits: [N, C] -> [N, C]."""
    return uncertainty(logits).argsort(dim=1, descending=True, stable=True)


@torch.no_grad()
def curve(
    head: Conceptual,
    logits: Tensor,
    present: Tensor,
    labels: Tensor,
    between: tuple[Tensor, Tensor],
    orders: Sequence[Tensor],
) -> list[float]:
    """The share of images that are classified as they should be, with the first 0, 1, ..., C concepts corrected.

    Args:
        head: makes classes of concepts.
        logits: [N, C] of its concepts.
        present: [N, C] bool, the truth.
        labels: [N] of the classes.
        between: of `ends`.
        orders: [C], or [N, C] of every image; the curve is the mean over them.

    Source: Koh et al. 2020 (arXiv 2007.04612), section 5 and appendix: test-time intervention.
    """
    found = torch.zeros(logits.shape[1] + 1, dtype=torch.float64)
    for order in orders:
        place = order.to(logits.device).expand_as(logits).argsort(dim=1)
        for count in range(len(found)):
            answers = head.of_concepts(corrected(logits, present, place < count, between)).argmax(1)
            found[count] += (answers == labels).double().mean().cpu()
    return (found / len(orders)).tolist()
