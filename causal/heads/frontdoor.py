"""The front-door adjustment as a head: what an image leads to, averaged over other images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engram.backbone.data.columns import MEDIATOR, numbered
from engram.backbone.data.sets import Split
from engram.backbone.errors import must
from engram.causal.heads.gated import Gated
from engram.causal.heads.options import FrontdoorOptions


class Frontdoor(nn.Module):
    """P(y | do(x)) = sum_r P(r | x) sum_x' P(x') P(y | r, x'), with P(y | r, x') = softmax(f(x', r)).

    Logits are logarithms of probabilities. The mediator r has a few values; x' are features of training images, the
    last that training has shown. That the sum is P(y | do(x)) takes the graph (the picture has its effect on the label
    through r alone, and nothing unseen is behind r and one of the two), an r that the picture does not settle, r in the
    data, and training on r itself (objective ``frontdoor``). Without it r is whatever lowers the loss.

    Args:
        features: F.
        classes: K.
        options: how many values and how many images.

    Source: Pearl 2009, theorem 3.3.4; Mao et al. 2022 (arXiv 2204.12363).
    """

    others: Tensor
    column = MEDIATOR

    def __init__(self, features: int, classes: int, options: FrontdoorOptions) -> None:
        super().__init__()
        self.mediator = nn.Linear(features, options.mediators)
        self.label = Gated(features, classes, options.mediators)
        self.register_buffer("others", torch.zeros(options.samples, features))

    def forward(self, features: Tensor) -> Tensor:
        """features: [..., F] -> log P(y | do(x)), [..., K]. In training the features are kept to be averaged over."""
        if self.training:
            self._keep(features)
        others = self.others.clone() if self.training else self.others  # a later pass of the step writes into them
        led_to = self.label(others).softmax(-1).mean(0)
        return (self._mediators(features).exp() @ led_to).log()

    def given(self, features: Tensor) -> Tensor:
        """features: [..., F] -> log P(r, y | x) of every value r, [..., V, K]; their sum over r is P(y | x)."""
        return self._mediators(features).unsqueeze(-1) + self.label(features).log_softmax(-1)

    def _mediators(self, features: Tensor) -> Tensor:
        """log P(r | x), [..., V]."""
        return self.mediator(features).float().log_softmax(-1)

    @torch.no_grad()
    def _keep(self, features: Tensor) -> None:
        """The last come first, and those before move on."""
        count = len(self.others)
        new = features.detach().flatten(0, -2)[-count:].to(self.others.dtype)
        self.others.copy_(torch.cat((new, self.others))[:count])

    def as_linear(self) -> None:
        """None: a mean of probabilities is no linear layer."""
        return

    def fill(self, features: Tensor, rows: Tensor, data: Split, seed: int) -> None:
        """Begin with these images to average over, [M, F]: there may be fewer than the head keeps, which come again.

        Raises:
            UserError: the column ``mediator`` has more values than the head.
        """
        known = numbered(data.columns[MEDIATOR])[1] if MEDIATOR in data.columns else ()
        if len(known) > self.mediator.out_features:
            rule, remedy = f"at least the {len(known)} values of the column {MEDIATOR!r}", f"Use {len(known)}."
            raise must("--head.mediators", rule, self.mediator.out_features, remedy)
        self.others.copy_(features[torch.arange(len(self.others)) % len(features)])
