"""What a network makes of a batch, as objectives see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Wanted = Literal["steps", "features", "images", "predictions", "given"]


@dataclass
class Outputs:
    """What the network makes of a batch.

    Attributes:
        logits: [N, K] float32, the read-out of all steps.
        steps: [S, N, K] float32, those of every step, for objectives that want ``"steps"``.
        features: [N, D], the read-out in front of the head, for objectives that want ``"features"``.
        images: [N, C, H, W], what the network would be shown, for objectives that want ``"images"`` and run it
            themselves: it is not run before, and there are no logits, [N, 0].
        predictions: [P], the mean squared error of each prediction that a network makes of its own values
            (`engram.backbone.contract.Predicting`), for objectives that want ``"predictions"``: nothing else is
            computed, and there are no logits, [N, 0].
        given: [N, V, K] float32, log-likelihoods of the classes for each of V values of another variable, where the
            head tells them (`engram.backbone.contract.Conditional`), for objectives that want ``"given"``.
        offered: [K] or [N, K] bool, the outputs that a row chooses among; None for all. Logits of others are far below.
    """

    logits: Tensor
    steps: Tensor | None = None
    features: Tensor | None = None
    images: Tensor | None = None
    predictions: Tensor | None = None
    given: Tensor | None = None
    offered: Tensor | None = None
