"""Is a network sensitive to a concept? Directions of concepts (TCAV) against directions of random images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import torch
from scipy.stats import ttest_ind_from_stats
from torch import Tensor

from engram.backbone.contract import Row
from engram.backbone.data.columns import CONCEPTS, Column, numbered
from engram.backbone.data.sets import Split
from engram.backbone.errors import must
from engram.backbone.seeding import generator

EXAMPLES = 50
"""Images of a concept, and of every random set, at most."""
LEAST = 5
"""With fewer images a concept has no direction."""
_ITERATIONS, _PENALTY = 50, 1.0


@dataclass(frozen=True)
class Examples:
    """Images that show concepts.

    Attributes:
        concepts: by name their places in the split, [E] int64.
        random: sets of places drawn by lot, [E] int64 each.
    """

    concepts: Mapping[str, Tensor]
    random: Sequence[Tensor]

    @classmethod
    def of(cls, split: Split, column: str, runs: int, seed: int) -> Examples:
        """Draw them from a split.

        Args:
            split: training images.
            column: names or whole numbers, of which each value is a concept, or [N, K] bool, K concepts.
            runs: how many random sets.
            seed: of the draws.

        Raises:
            UserError: there is no such column, or too few images show a concept.
        """
        if column not in split.columns:
            known = ", ".join(split.columns) or "none"
            raise must("--concept", f"a column of the data ({known})", column, "Name one of these, or leave it out.")
        shown = _shown(split.columns[column])
        rare = [name for name, places in shown.items() if len(places) < LEAST]
        if rare or not shown:
            got = f"{column} = {rare[0]} with {len(shown[rare[0]])}" if rare else f"{column}, which has no values"
            raise must("--concept", f"a column each of whose values {LEAST} training images have", got, "Name another.")
        drawn = {
            name: places[torch.randperm(len(places), generator=generator(seed, f"concept {name}"))[:EXAMPLES]]
            for name, places in shown.items()
        }
        lots = [
            torch.randperm(len(split), generator=generator(seed, "random concept", run))[:EXAMPLES]
            for run in range(runs)
        ]
        return cls(drawn, lots)


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

    Logistic regression with an L2 penalty, by Newton's method in the space that the images span.

    Args:
        shown: [E, D] values of images of the concept; others: [R, D].

    Returns: [D]; 0 where all images have the same values.

    Source: Kim et al. 2018 (arXiv 1711.11279), section 3.2.
    """
    rows = torch.cat([shown, others]).double()
    centred = rows - rows.mean(0)
    scale = centred.square().sum(1).mean().sqrt().clamp(min=1e-12)
    u, s, vt = torch.linalg.svd(centred / scale, full_matrices=False)
    x = torch.cat([u * s, torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    y = torch.cat([torch.ones(len(shown)), torch.zeros(len(others))]).double()
    weights = torch.zeros(x.shape[1], dtype=torch.float64)
    penalty = torch.full_like(weights, _PENALTY / len(rows))
    penalty[-1] = 1e-9  # the intercept
    for _ in range(_ITERATIONS):
        p = torch.sigmoid(x @ weights)
        grad = x.T @ (p - y) / len(rows) + penalty * weights
        curvature = (x * (p * (1 - p)).unsqueeze(1)).T @ x / len(rows) + torch.diag(penalty)
        step = torch.linalg.solve(curvature, grad)
        weights = weights - step
        if step.abs().max() < 1e-10:
            break
    found = weights[:-1] @ vt
    return torch.nn.functional.normalize(found, dim=0)


def directions(values: Mapping[str, Tensor], random: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """For each concept a direction against every random set, and under "" one of every random set against the next.

    values: [E, D] of the images of each concept; random: [E, D] each.
    """
    found = {name: [direction(each, other) for other in random] for name, each in values.items()}
    found[""] = [direction(each, random[(k + 1) % len(random)]) for k, each in enumerate(random)]
    return found


def rows(found: Mapping[str, Sequence[Tensor]], gradients: Tensor, classes: Tensor, names: Sequence[str]) -> list[Row]:
    """The table: is the logit of a class sensitive to a concept?

    ``score`` is the share of the class's images whose logit grows when the stage's output moves in the concept's
    direction, the mean over random sets; ``random`` is the same for directions of random sets. ``p`` is Welch's test
    that both have one mean: the chance of a difference as large if the concept were as good as random. A small one
    tells that the network uses the direction, not what caused it to; with many concepts some are small by chance, and
    ``p_corrected`` is multiplied by their number (Bonferroni).

    Args:
        found: directions [D] each, as `directions` gives them.
        gradients: [N, D] of the logits of ``classes``, [N] int64, with respect to the stage's output.
        names: of classes.
    """
    table: list[Row] = []
    tests = (len(found) - 1) * len(classes.unique())
    for number in classes.unique().tolist():
        own = gradients[classes == number].double()
        scores = {name: [float((own @ each > 0).double().mean()) for each in some] for name, some in found.items()}
        random = scores.pop("")
        for name, each in scores.items():
            p = _chance(each, random)
            table.append(
                {
                    "class": names[number],
                    "concept": name,
                    "score": sum(each) / len(each),
                    "random": sum(random) / len(random),
                    "p": p,
                    "p_corrected": min(p * tests, 1.0),
                    "images": len(own),
                }
            )
    return table


def _chance(some: Sequence[float], others: Sequence[float]) -> float:
    """The p of Welch's test, which knows no answer where neither has any spread."""
    if len(set(some)) == 1 and len(set(others)) == 1:
        return float(some[0] == others[0])
    each = [float(number) for values in (some, others) for number in (mean(values), stdev(values), len(values))]
    return float(ttest_ind_from_stats(*each, equal_var=False).pvalue)
