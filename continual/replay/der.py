"""Dark experience replay: what the network said of an image when it was new, kept with the image."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Batch, Learner
from engram.continual.replay.rehearsal import Rehearsal


class DER(Rehearsal):
    """``L + alpha mean (h(x) - z)^2`` over rows x of the buffer and all logits; z: the logits when x came in.

    z was computed in training mode, on the image as it was augmented then, before that step changed the weights; x is
    augmented anew. The paper writes a squared norm, the sum over logits; its authors' code takes the mean, and so do
    its published values of alpha, so that alpha here is the paper's times the number of logits. Rows of the buffer
    make a forward pass of their own, as there: batch normalisation sees new and old images apart.

    Source: Buzzega et al. 2020 (arXiv 2004.07211), equation 4 and algorithm 1.
    """

    name: ClassVar[str] = "der"
    keeps_logits: ClassVar[bool] = True
    reach = "all"
    options: Any  # DEROptions, DERppOptions

    def loss(self, learner: Learner, batch: Batch, loss: Tensor) -> Tensor:
        if not self.ready:
            return loss
        images, rows = self.recall(learner)
        assert rows.logits is not None
        return loss + self.options.alpha * F.mse_loss(learner.forward(images), rows.logits)


class DERpp(DER):
    """DER, and ``beta`` times the cross-entropy of other rows of the buffer, drawn independently.

    Source: Buzzega et al. 2020 (arXiv 2004.07211), equation 6 and algorithm 2.
    """

    name: ClassVar[str] = "derpp"

    def loss(self, learner: Learner, batch: Batch, loss: Tensor) -> Tensor:
        loss = super().loss(learner, batch, loss)
        if not self.ready:
            return loss
        images, rows = self.recall(learner)
        return loss + self.options.beta * learner.losses(learner.forward(images), rows.labels, rows.tasks).mean()
