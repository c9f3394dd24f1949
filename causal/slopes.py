"""What a network's loss gains where all its logits are scaled up: how far from invariant it is on an image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def entropies(logits: Tensor) -> Tensor:
    """Of the answer of every row, in nats: logits [N, K] -> [N]."""
    logs = logits.log_softmax(1)
    return -(logs.exp() * logs).sum(1)


def slopes(logits: Tensor, labels: Tensor) -> Tensor:
    """The derivative of each image's cross-entropy by a factor of all logits, at 1: the cross-entropy less the entropy.

    logits: [N, K]; labels: [N] int64 -> [N]. Its mean over an environment, squared, is that environment's IRM penalty.
    """
    return F.cross_entropy(logits, labels, reduction="none") - entropies(logits)
