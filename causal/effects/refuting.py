"""Attempts to refute an effect: the same estimate where it should come out as 0, or as it was.

What p means: it is the share of such attempts, from the middle of them outwards on both sides, that come out at least
as far off as what should come out. A *small* p therefore speaks *against* the estimate; a large one says that the
attempt failed to refute it, and no more. It is no test of whether there is an effect: that is what the interval of the
estimate is for.

Source: Sharma and Kiciman 2020 (dowhy, arXiv 2011.04216), section 4.4, whose refuters these are and whose p is read so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engram.backbone.seeding import generator

DRAWS = 400
SHARE = 0.8
"""Of the pictures, how many are in a subset."""
SUSPICIOUS = 0.05


@dataclass(frozen=True)
class Refutation:
    """What came out of the attempts to refute some estimates.

    Attributes:
        expected: [K], what should come out: 0, or the estimates.
        drawn: [DRAWS, K], what did.
    """

    expected: Tensor
    drawn: Tensor

    @property
    def p(self) -> Tensor:
        """[K], in (0, 1]: see above."""
        return p_values(self.drawn, self.expected)

    def ends(self) -> tuple[Tensor, Tensor]:
        """Between what the middle 95 % of the attempts lie, [K] each."""
        low, high = self.drawn.quantile(torch.tensor([0.025, 0.975], dtype=self.drawn.dtype), dim=0)
        return low, high


def p_values(drawn: Tensor, expected: Tensor) -> Tensor:
    """Twice the smaller share of attempts on one side of what should come out, itself among them, at most 1.

    Args:
        drawn: [D, K].
        expected: [K].

    Returns: [K].

    >>> p_values(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0.0])).tolist()
    [0.5]
    >>> p_values(torch.zeros(3, 1), torch.zeros(1)).tolist()
    [1.0]
    """
    below, above = (drawn <= expected).sum(0) + 1, (drawn >= expected).sum(0) + 1
    return (2 * torch.minimum(below, above).double() / (len(drawn) + 1)).clamp(max=1)


def placebo(along: Tensor, seed: int) -> Refutation:
    """Effects of a placebo in the place of a channel: they should be 0. One estimate for all channels of a stage.

    What a stage has along a direction by lot is set to one other picture's value or to a second one's, and a coin
    decides which of the two is called the treatment: neither has anything to do with the picture, so that the average
    causal effect of one against the other is 0 in any network.

    Args:
        along: [2, R, N], the outcome with either, of R directions.
        seed: of the draws: of coins, a direction, and pictures with replacement.
    """
    _, directions, count = along.shape
    random = generator(seed, "causal.effects/placebo")
    differences = placebo_differences(along, random)
    which = torch.randint(directions, (DRAWS,), generator=random)
    means = _again(count, random) @ differences.T / count
    return Refutation(torch.zeros(1, dtype=torch.float64), means.gather(1, which[:, None]))


def placebo_differences(along: Tensor, random: torch.Generator) -> Tensor:
    """The effect of a placebo on every picture, [R, N] float64; ``along``: see `placebo`."""
    first, second = along.double()
    coins = torch.randint(2, first.shape, generator=random).double() * 2 - 1
    return coins * (first - second)


def permuted_labels(differences: Tensor, targets: Tensor, seed: int) -> Refutation:
    """Effects on the outputs that stand for other pictures' classes: they should be 0 for a probability.

    They are where an effect is on the right class. One that goes to a class whatever the picture comes out as the share
    of pictures that this class has more than others.

    Args:
        differences: [K, N, outputs], differences of the probability of every output.
        targets: [N] int64, the right outputs.
        seed: of the draws: of pictures with replacement, whose labels are then exchanged.
    """
    count, random = len(targets), generator(seed, "causal.effects/labels")
    drawn = []
    for _ in range(DRAWS):
        pictures, labels = (torch.randint(count, (count,), generator=random) for _ in range(2))
        drawn.append(differences[:, pictures, targets[labels]].double().mean(1))
    return Refutation(torch.zeros(len(differences), dtype=torch.float64), torch.stack(drawn))


def random_common_cause(differences: Tensor, seed: int) -> Refutation:
    """Effects adjusted, by least squares, for a number drawn for every picture: they should be as they were.

    Args:
        differences: [K, N].
        seed: of the numbers, standard normal.
    """
    values = differences.double()
    random = generator(seed, "causal.effects/common-cause")
    causes = torch.randn(DRAWS, values.shape[1], generator=random, dtype=torch.float64)
    middle = causes.mean(1, keepdim=True)
    spread = causes - middle
    slopes = spread @ values.T / spread.square().sum(1, keepdim=True)
    return Refutation(values.mean(1), values.mean(1) - slopes * middle)


def subsets(differences: Tensor, seed: int) -> Refutation:
    """Effects over subsets of the pictures, `SHARE` of them: they should be as over all.

    Args:
        differences: [K, N].
        seed: of the subsets.
    """
    values = differences.double()
    count, random = values.shape[1], generator(seed, "causal.effects/subsets")
    size = max(1, round(SHARE * count))
    chosen = torch.rand(DRAWS, count, generator=random).argsort(1)[:, :size]
    weights = torch.zeros(DRAWS, count, dtype=torch.float64).scatter_(1, chosen, 1.0)
    return Refutation(values.mean(1), weights @ values.T / size)


def _again(count: int, random: torch.Generator) -> Tensor:
    """How often each picture is drawn when as many are drawn with replacement, [DRAWS, N] float64."""
    drawn = torch.randint(count, (DRAWS, count), generator=random)
    return torch.zeros(DRAWS, count, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(drawn.shape).double())
