"""Is a network sensitive to a concept? Directions of concepts (TCAV) beside those of concepts drawn by lot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from engram.backbone.contract import Row
from engram.backbone.data.columns import CONCEPTS, Column, numbered
from engram.backbone.data.sets import Split
from engram.backbone.errors import must
from engram.backbone.seeding import generator
from engram.causal.explaining.configs import unknown_concept

EXAMPLES = 50
"""Images of a concept, and of every set that it is told from, at most."""
LEAST = 5
"""With fewer images a concept has no direction."""
POOL = 500
"""Training images that sets to tell concepts from are drawn of, at most, and as many for concepts by lot."""
LOTS = 99
"""Concepts by lot that a concept is held against."""


@dataclass(frozen=True)
class Examples:
    """Images that show concepts.

    Attributes:
        concepts: by name their places in the split, [E] int64.
        others: places of images that concepts are told from, [P] int64.
        lots: places of other images, of which concepts by lot are made, [P] int64.
    """

    concepts: Mapping[str, Tensor]
    others: Tensor
    lots: Tensor

    @classmethod
    def of(cls, split: Split, column: str, seed: int) -> Examples:
        """Draw them from a split.

        Args:
            split: training images.
            column: names or whole numbers, of which each value is a concept, or [N, K] bool, K concepts.
            seed: of the draws.

        Raises:
            UserError: there is no such column, or too few images show a concept.
        """
        if column not in split.columns:
            raise unknown_concept(column, split.columns)
        shown = _shown(split.columns[column])
        rare = [name for name, places in shown.items() if len(places) < LEAST]
        if rare or not shown:
            got = f"{column} = {rare[0]} with {len(shown[rare[0]])}" if rare else f"{column}, which has no values"
            raise must("--concept", f"a column each of whose values {LEAST} training images have", got, "Name another.")
        drawn = {
            name: places[torch.randperm(len(places), generator=generator(seed, f"concept {name}"))[:EXAMPLES]]
            for name, places in shown.items()
        }
        order = torch.randperm(len(split), generator=generator(seed, "concepts by lot"))
        size = min(POOL, len(split) // 2)
        return cls(drawn, order[:size], order[size : 2 * size])


def _shown(column: Column) -> dict[str, Tensor]:
    """By concept, the places of the images that show it."""
    if isinstance(column, Tensor) and column.ndim == 2:
        return {f"{CONCEPTS} {k}": column[:, k].nonzero().squeeze(1) for k in range(column.shape[1])}
    if isinstance(column, Tensor) and (column.ndim > 2 or column.is_floating_point()):
        return {}
    groups, names = numbered(column)
    return {name: (groups == number).nonzero().squeeze(1) for number, name in enumerate(names)}


def direction(shown: Tensor, others: Tensor) -> Tensor:
    """The direction in which images of a concept lie from others: the normal of what separates them, of length 1.

    Logistic regression by scikit-learn, with its usual penalty, of values centred and scaled by their mean length.

    Args:
        shown: [E, D] values of images of the concept; others: [R, D].

    Returns: [D]; 0 where all images have the same values.

    Source: Kim et al. 2018 (arXiv 1711.11279), section 3.2.
    """
    rows = torch.cat([shown, others]).double()
    centred = rows - rows.mean(0)
    scale = centred.square().sum(1).mean().sqrt()
    if scale == 0:
        return torch.zeros(rows.shape[1], dtype=torch.float64)
    labels = [1] * len(shown) + [0] * len(others)
    fitted = LogisticRegression(tol=1e-8, max_iter=1000).fit((centred / scale).numpy(), labels)
    return torch.nn.functional.normalize(torch.from_numpy(fitted.coef_[0]), dim=0)


def directions(shown: Tensor, told_from: Sequence[Tensor]) -> Tensor:
    """The directions of a concept against each of several sets: [E, D] and [R, D] each -> [sets, D]."""
    return torch.stack([direction(shown, others) for others in told_from])


def rows(
    concepts: Mapping[str, Tensor],
    others: Tensor,
    lots: Tensor,
    gradients: Tensor,
    classes: Tensor,
    names: Sequence[str],
    *,
    runs: int,
    seed: int,
) -> list[Row]:
    """The table: is the logit of a class sensitive to a concept?

    ``score`` is the share of the class's images whose logit grows when the stage's output moves in the concept's
    direction: the mean over ``runs`` sets of images that the concept is told from. `LOTS` concepts by lot, of as many
    images, are told from the same sets; ``random`` is the mean of their scores, and ``p`` the share of them (and of
    the concept, as one more) whose score is as far from that mean. It is the chance of a score as far if the concept's
    images had been drawn by lot, at least 0.01. Of many concepts some have a small one by chance. It tells that the
    network uses the direction, not what caused it to.

    Args:
        concepts: by name the stage's output for the images of a concept, [E, D].
        others: [P, D] of the images to tell concepts from; lots: [P, D] of those that concepts by lot are made of.
        gradients: [N, D] of the logits of ``classes``, [N] int64, with respect to the stage's output.
        names: of classes.
        runs: how many sets a concept is told from.
        seed: of the sets and lots.
    """
    told_from = [_drawn(others, EXAMPLES, seed, "told from", run) for run in range(runs)]
    by_lot: dict[int, list[Tensor]] = {}
    for size in {len(shown) for shown in concepts.values()}:
        drawn = [_drawn(lots, size, seed, "by lot", lot) for lot in range(LOTS)]
        by_lot[size] = [directions(each, told_from) for each in drawn]
    found = {name: directions(shown, told_from) for name, shown in concepts.items()}
    table: list[Row] = []
    for number in classes.unique().tolist():
        own, called = gradients[classes == number].double(), str(names[int(number)])
        chance = {size: torch.tensor([_score(own, each) for each in some]) for size, some in by_lot.items()}
        for name, each in found.items():
            score, random = _score(own, each), chance[len(concepts[name])]
            far = (random - random.mean()).abs() >= abs(score - float(random.mean())) - 1e-12
            table.append(
                {
                    "class": called,
                    "concept": name,
                    "score": score,
                    "random": float(random.mean()),
                    "p": (1 + int(far.sum())) / (1 + len(random)),
                    "images": len(own),
                }
            )
    return table


def _score(gradients: Tensor, found: Tensor) -> float:
    """The share of gradients [N, D] that lie along directions [R, D], the mean over these."""
    return float((gradients @ found.T > 0).double().mean())


def _drawn(values: Tensor, count: int, seed: int, purpose: str, number: int) -> Tensor:
    """So many of some rows, at most all."""
    return values[torch.randperm(len(values), generator=generator(seed, purpose, number))[:count]]
