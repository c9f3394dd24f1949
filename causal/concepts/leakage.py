"""What numbers of concepts say of the class, and of other concepts, beyond whether the concepts are there."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.causal.logistic import regression, standardised

BINS = 8
"""Parts, as many images in each, into which the logits of a concept are sorted."""
_DECAY, _STEPS = 1e-3, 500


def entropy(values: Tensor) -> float:
    """Entropy in nat of what whole numbers ``[N]`` are drawn from, as Miller and Madow correct that of the counts.

    >>> round(entropy(torch.tensor([0, 1] * 500)), 4)
    0.6936
    """
    counts = values.unique(return_counts=True)[1].double()
    shares = counts / counts.sum()
    return float(torch.special.entr(shares).sum() + (len(counts) - 1) / (2 * len(values)))


def information(some: Tensor, others: Tensor) -> float:
    """Mutual information in nat of whole numbers, ``[N]`` each, from corrected entropies; it may come out below 0.

    >>> coins = torch.tensor([0, 0, 1, 1] * 500)
    >>> round(information(coins, torch.tensor([0, 1] * 1000)), 3)
    -0.0
    """
    both = some * (int(others.max()) + 1) + others
    return entropy(some) + entropy(others) - entropy(both)


def binned(logits: Tensor) -> Tensor:
    """The part of `BINS` in which each is, by rank; equal ones are together. logits: [N] -> [N] int64."""
    edges = logits.double().quantile(torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1])
    return torch.bucketize(logits.double(), edges)


def of_the_class(logits: Tensor, present: Tensor, labels: Tensor) -> list[float]:
    """Of every concept the share of the class's entropy that its logit tells, less what the concept itself tells, [C].

    Args:
        logits: [N, C]; present: [N, C] bool; labels: [N].

    Source: Parisini et al. 2025 (arXiv 2504.14094), concepts-task leakage, concept by concept; information is that of
    binned logits here.
    """
    whole = entropy(labels)
    return [
        (information(binned(logits[:, k]), labels) - information(present[:, k].long(), labels)) / whole
        for k in range(logits.shape[1])
    ]


def of_other_concepts(logits: Tensor, present: Tensor) -> list[float]:
    """Of every concept the share of the other concepts' entropy that its logit tells, less what it tells itself, [C].

    The mean over the other concepts; one that all images share, or none has, tells nothing and is left out.

    Source: Parisini et al. 2025 (arXiv 2504.14094), interconcept leakage, as above.
    """
    truth = [column.long() for column in present.T]
    varying = [k for k, column in enumerate(truth) if 0 < int(column.sum()) < len(column)]
    found = []
    for k in range(len(truth)):
        parts = binned(logits[:, k])
        others = [
            (information(parts, truth[j]) - information(truth[k], truth[j])) / entropy(truth[j])
            for j in varying
            if j != k
        ]
        found.append(sum(others) / len(others) if others else 0.0)
    return found


def by_pattern(patterns: Tensor, labels: Tensor, other_patterns: Tensor) -> Tensor:
    """The commonest label of every pattern of concepts, for others' patterns: no function of concepts is right oftener.

    Args:
        patterns: [N, C] bool; labels: [N] int64.
        other_patterns: [M, C] bool; one that is new gets the commonest label of all.

    Returns: [M] int64.
    """
    known, which = patterns.unique(dim=0, return_inverse=True)
    table = torch.zeros(len(known), int(labels.max()) + 1, dtype=torch.int64)
    table.index_put_((which, labels), torch.ones_like(labels), accumulate=True)
    best = {tuple(row.tolist()): int(counts.argmax()) for row, counts in zip(known, table, strict=True)}
    usual = int(labels.bincount().argmax())
    return torch.tensor([best.get(tuple(row.tolist()), usual) for row in other_patterns])


def by_numbers(logits: Tensor, labels: Tensor, other_logits: Tensor) -> Tensor:
    """The labels that a logistic regression fitted to concepts' logits gives to others.

    Args:
        logits: [N, C]; labels: [N] int64.
        other_logits: [M, C].

    Returns: [M] int64.
    """
    rows, others = standardised(logits.double(), other_logits.double())
    return (others @ regression(rows, labels, int(labels.max()) + 1, _DECAY, _STEPS)).argmax(1)
