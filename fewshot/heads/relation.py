"""A network that says how alike a class and a query are: relation networks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.errors import must
from engram.backbone.hardware import exactly
from engram.backbone.nets.prototypes import class_means
from engram.fewshot.head_options import RelationOptions

ABOVE = 8
"""Units between the blocks and the answer."""


class Relation(nn.Module):
    """A network g of two blocks and two linear layers, shown the mean of a class beside a query.

        z_k = g([c_k, f]),    loss = (sigmoid(z_k) - 1 if it is the query's class, else 0)^2

    A block is a linear layer, BatchNorm and ReLU; where the features are maps, a 3 x 3 convolution in place of the
    layer, and a max pool of 2. The paper adds the features of a class up; their mean is the same for any number of
    images. BatchNorm sees all pairs of a batch in training, and none in evaluation.

    Args:
        features: F.
        classes: K.
        options: whether features are maps, and the width.

    Source: Sung et al. 2018 (arXiv 1711.06025), sections 3.2 and 3.4.
    """

    means: Tensor

    def __init__(self, features: int, classes: int, options: RelationOptions) -> None:
        super().__init__()
        self.options = options
        maps, units = options.maps, options.units
        self.shape = (maps, *_sides(features, maps)) if maps else (features,)
        self.first, self.second = self._layer(2 * self.shape[0], units), self._layer(units, units)
        norm = nn.BatchNorm2d if maps else nn.BatchNorm1d
        self.norms = nn.ModuleList(norm(units) for _ in range(2))
        seen = units * math.prod(side // 4 for side in self.shape[1:])
        self.answer = nn.Sequential(nn.Linear(seen, ABOVE), nn.ReLU(), nn.Linear(ABOVE, 1))
        self.register_buffer("means", torch.full((classes, features), torch.nan))

    def _layer(self, wide: int, units: int) -> nn.Linear | nn.Conv2d:
        return nn.Conv2d(wide, units, 3, padding=1) if self.options.maps else nn.Linear(wide, units)

    def forward(self, features: Tensor) -> Tensor:
        """features: [..., F] -> logits [..., K], of a head that was `fitted`."""
        with exactly(features):
            queries = features.float().reshape(1, -1, features.shape[-1])
            return self._related(self.means.unsqueeze(0), queries).reshape(*features.shape[:-1], -1)

    def as_linear(self) -> None:
        """None: it is a network."""
        return

    def from_support(self, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """[E, Q, F], [E, S, F], [E, S] -> logits [E, Q, K]."""
        with exactly(support):
            return self._related(class_means(support.float(), labels, ways), queries.float())

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean squared error of the sigmoid of logits [E, Q, K] with one-hot labels [E, Q]."""
        return F.mse_loss(logits.sigmoid(), F.one_hot(labels, logits.shape[-1]).to(logits.dtype))

    def fitted(self, support: Tensor, labels: Tensor, ways: int) -> Relation:
        """[S, F], [S] -> the head with the same network that keeps the class means."""
        made = Relation(support.shape[1], ways, self.options).to(support.device).train(self.training)
        means = class_means(support.detach().float(), labels, ways)
        made.load_state_dict({**self.state_dict(), "means": means})
        return made

    def _related(self, means: Tensor, queries: Tensor) -> Tensor:
        """[E, K, F] and [E, Q, F] -> [E, Q, K]."""
        # the first layer is linear in either half of a pair: each class and query goes through it once
        pairs = (self._half(means, 0).unsqueeze(1) + self._half(queries, 1).unsqueeze(2)).flatten(0, 2)
        hidden = self._block(self.second(self._block(pairs, 0)), 1)
        return self.answer(hidden.flatten(1)).view(len(means), queries.shape[1], means.shape[1])

    def _half(self, features: Tensor, which: int) -> Tensor:
        x, weight = features.reshape(-1, *self.shape), self.first.weight.chunk(2, 1)[which]
        bias = self.first.bias if which else None
        x = F.conv2d(x, weight, bias, padding=1) if self.options.maps else F.linear(x, weight, bias)
        return x.view(*features.shape[:2], *x.shape[1:])

    def _block(self, x: Tensor, which: int) -> Tensor:
        x = self.norms[which](x).relu()
        return F.max_pool2d(x, 2) if self.options.maps else x


def _sides(features: int, maps: int) -> tuple[int, int]:
    """Height and width of the maps."""
    side = math.isqrt(features // maps)
    if maps * side * side != features or side < 4:
        got = f"{maps} for {features} features"
        raise must("--head.maps", "the number of square maps of 4 x 4 or more", got, "Use 0 for a vector.")
    return side, side
