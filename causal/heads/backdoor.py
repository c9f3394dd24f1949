"""The back-door adjustment as a head: answers averaged over a confounder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engram.backbone.data.columns import CONTEXT, numbered
from engram.backbone.data.sets import Split
from engram.backbone.errors import must
from engram.backbone.seeding import generator
from engram.causal.heads.clusters import k_means
from engram.causal.heads.gated import START, Gated
from engram.causal.heads.options import BackdoorOptions


class Backdoor(nn.Module):
    """P(y | do(x)) = sum_z P(z) P(y | x, z), with P(y | x, z) = softmax(f(x, z)).

    Logits are logarithms of probabilities. How often a confounder's values come, P(z), is counted in the training data
    once. That the mean is P(y | do(x)) takes three things: the graph (nothing but z is behind both the picture and its
    label), z in the data, and training f on z itself (objective ``backdoor``). Trained by the cross-entropy of its
    logits, the mean becomes P(y | x), as any classifier's answers do.

    Modes: ``exact`` is that mean, from all values at once. ``nwgm`` takes the mean of the logits, softmax(sum_z P(z)
    f(x, z)), as VC R-CNN does to save time: another number, the further away the larger the logits. ``attention`` takes
    the logits for ``sum_z a_z(x) P(z) z``, with a_z(x) = softmax of (q(x) . k(z) / sqrt(d)): the weights follow the
    image, and do not sum to 1. That is no adjustment; it is here to be compared with.

    Args:
        features: F.
        classes: K.
        options: the mode, and how many values there are.

    Source: Pearl 2009, theorem 3.3.2; Wang et al. 2020 (arXiv 2002.12204), VC R-CNN.
    """

    prior: Tensor
    column = CONTEXT

    def __init__(self, features: int, classes: int, options: BackdoorOptions) -> None:
        super().__init__()
        self.mode, count = options.mode, options.confounders
        self.given_value = Gated(features, classes, count)
        self.register_buffer("prior", torch.full((count,), 1 / count))
        if self.mode == "attention":
            self.query = nn.Linear(features, features, bias=False)
            self.key = nn.Linear(features, features, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """features: [..., F] -> log P(y | do(x)), [..., K]."""
        if self.mode == "attention":
            return self.given_value.mixed(features, self._attention(features) * self.prior).log_softmax(-1)
        if self.mode == "nwgm":
            return self.given_value.mixed(features, self.prior).log_softmax(-1)
        return (self.given(features).mT + self.prior.log()).logsumexp(-1)

    def given(self, features: Tensor) -> Tensor:
        """features: [..., F] -> log P(y | x, z) of every value z, [..., V, K]."""
        return self.given_value(features).mT.log_softmax(-2).mT

    def _attention(self, features: Tensor) -> Tensor:
        """a_z(x), [..., V]."""
        keys = self.key(self.given_value.gains)
        return (self.query(features) @ keys.T / math.sqrt(features.shape[-1])).float().softmax(-1)

    def as_linear(self) -> None:
        """None: a mean of probabilities is no linear layer."""
        return

    @torch.no_grad()
    def fill(self, features: Tensor, rows: Tensor, data: Split, seed: int) -> None:
        """Take P(z) and the first gains from training images: mean features of each context, or clusters.

        Args:
            features: [M, F] of the images at ``rows`` [M] of the data.
            data: the training images.
            seed: of the clustering, where no column tells the context.

        Raises:
            UserError: the column has more values than the head.
        """
        count = len(self.prior)
        if (column := data.columns.get(CONTEXT)) is None:
            centres, members = k_means(features, count, generator(seed, "confounders"))
        else:
            members, names = numbered(column)
            if len(names) > count:
                rule, remedy = f"at least the {len(names)} values of the column {CONTEXT!r}", f"Use {len(names)}."
                raise must("--head.confounders", rule, count, remedy)
            sums = features.new_zeros(count, features.shape[1]).index_add_(0, members[rows], features)
            centres = sums / members[rows].bincount(minlength=count).clamp(min=1)[:, None]
        shares = members.bincount(minlength=count)
        self.prior.copy_(shares / shares.sum())
        held = shares > 0
        own = centres[held] - self.prior[held] @ centres[held]
        self.given_value.gains.zero_()
        self.given_value.gains[held] = START * own / own.square().mean(0).sqrt().clamp(min=1e-6)
